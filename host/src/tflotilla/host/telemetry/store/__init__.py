"""What boards reported, kept: appended durably, summed per minute, hour and day, forgotten when it is old, asked."""
