"""Command line of tools/count_macs.py."""

import argparse


def parse_args(argv=None) -> argparse.Namespace:
    """The flags of tools/count_macs.py."""
    parser = argparse.ArgumentParser(description="Prints parameters and multiply-accumulate operations of a model.")
    parser.add_argument("--config", required=True, help="configuration of the model")
    parser.add_argument(
        "--input_shape", nargs=4, type=int, required=True, metavar=("B", "C", "H", "W"), help="such as 1 3 512 1024"
    )
    parser.add_argument("--opts", nargs="+", help="key=value pairs that replace values of the configuration")
    return parser.parse_args(argv)


def main(argv=None) -> int:
    """Prints the two numbers; returns the exit status."""
    args = parse_args(argv)
    from paddle_dnl.config import Config
    from paddle_dnl.models.build import build_model
    from paddle_dnl.profile.macs import count_macs, count_parameters

    model = build_model(Config(args.config, opts=args.opts))
    macs = count_macs(model, args.input_shape)
    shape = "x".join(map(str, args.input_shape))
    print(f"parameters: {count_parameters(model) / 1e6:.2f} M")
    print(f"multiply-accumulates at {shape}: {macs / 1e9:.2f} G")
    return 0
