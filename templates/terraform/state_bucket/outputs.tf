output "bucket" {
  description = "Name of the bucket, for a profile's state.bucket."
  value       = aws_s3_bucket.this.id
}
