"""The storage tuner: measures, on a sample of a collection, what each encoding costs and finds, and recommends one.

It runs the code of kintsugi.ann that shard servers run, in this process, and knows neither graphs nor wire formats."""
