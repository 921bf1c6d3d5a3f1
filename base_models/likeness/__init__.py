"""How good an adapter is, measured: whose likeness, what was asked, what was copied, how varied.

Used at the end of every training; knows no service, no store and no gRPC.
"""
