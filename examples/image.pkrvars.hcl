# A small image for the stand-in AWS; python is the version of your own python3:
#   bilbo --local image build examples/image.pkrvars.hcl --var python=3.11
name         = "demo"
root         = "/tmp/bilbo-image" # the stand-in's machines are processes of this one
requirements = "image.txt"
