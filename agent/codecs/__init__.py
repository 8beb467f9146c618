"""Pure translations between records and bytes."""
