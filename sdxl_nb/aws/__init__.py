"""Amazon Web Services: training on SageMaker. boto3 and sagemaker are imported only when something here is called."""
