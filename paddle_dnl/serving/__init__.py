"""An exported model as an HTTP service: settings, uploads, pictures, batches, answers, and one page for people."""
