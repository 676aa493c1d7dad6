  Destroyed module.worker.aws_autoscaling_group.this [1/5]
  Destroyed module.worker.aws_launch_template.this [2/5]
  still destroying module.head.aws_instance.this: 10 s
  Destroyed module.head.aws_instance.this [3/5]
  Destroyed module.security_group.aws_security_group.this [4/5]
  Destroyed module.network.terraform_data.availability_zone [5/5]
Destroyed cluster 'r'; nothing of it is left.
