"""What correction brought, as one page with its plots: of simulations and of live projects."""
