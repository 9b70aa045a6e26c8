"""What trained adapters changed: factors, singular values, layers."""
