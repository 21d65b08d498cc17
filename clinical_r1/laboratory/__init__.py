"""What the paper leaves out: arms that take CRPO apart, trained, compared and drawn (notebook 05). Shipped summaries make it
render without training.
"""
