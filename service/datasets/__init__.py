"""What is known of a data set before a job runs: the inspection report and the door to it."""
