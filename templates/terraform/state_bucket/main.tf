# A bucket for the Terraform states of bilbo's clusters: private, encrypted, every version kept.
# It refuses to be destroyed: with it would go the knowledge of what runs.

terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.70, < 7"
    }
  }
}

provider "aws" {
  region            = var.region
  s3_use_path_style = var.path_style
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:Logs need a second bucket; CloudTrail's data events tell the same.
  #checkov:skip=CKV_AWS_144:A copy in another region is the team's decision; every version is kept here.
  #checkov:skip=CKV2_AWS_61:States are small, and old versions are what a mistake is undone from.
  #checkov:skip=CKV2_AWS_62:Nobody waits for a state to be written.
  bucket = var.bucket
  tags   = { "bilbo:state" = var.bucket }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm = "aws:kms"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# What is read or written without TLS is refused, whoever asks.
resource "aws_s3_bucket_policy" "this" {
  count = var.only_tls ? 1 : 0

  bucket = aws_s3_bucket.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyOverTLS"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  # S3 takes one change of a bucket's access at a time.
  depends_on = [aws_s3_bucket_public_access_block.this]
}
