"""CPU working-memory techniques behind ordinary layers."""
