"""Implementations of the loss that never hold a B x K matrix; `maskcon_loss.ops` chooses among them."""
