"""The tasks of TotalSegmentator as cards, generated from its published task table (``tasks.json``)."""
