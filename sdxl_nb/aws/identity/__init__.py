"""Which run is a job's? What its places hold, here, in S3, on the hub and in the job; the run folder named by that."""
