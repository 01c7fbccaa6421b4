"""A web page of a .tflite: one HTML file that answers for pictures by itself.

`writer` makes the file of the model (`contents`), the runtime for browsers (`runtime`),
sample pictures (`samples`) and the scripts beside this file. `worker.js` runs the model
in a thread of its own; `main.js` is what people see.
"""
