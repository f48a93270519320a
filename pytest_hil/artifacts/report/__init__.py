"""What became of a run, for people and programs: report.html, ctrf.json, the difference of two."""
