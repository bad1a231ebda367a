"""The life of a job: `manager` queues and cancels, `run` takes one job through its states, `policies` decide."""
