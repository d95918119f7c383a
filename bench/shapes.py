"""The sizes of the benchmark cases, for the peers and for what is counted of them (limits.py): needs no PyTorch."""

# case: (inputs, hidden 1, hidden 2, classes, batch)
PERCEPTRONS = {1: (784, 100, 100, 10, 10), 2: (784, 256, 256, 10, 64), 3: (784, 1024, 1024, 10, 256),
               4: (784, 400, 400, 10, 256), 5: (784, 400, 400, 10, 256), 6: (784, 400, 400, 10, 64)}
COUNT, BLOCK = 32 * 1024 * 1024, 4096  # case 7

GPT = {"9": dict(vocab=50257, positions=1024, width=768, blocks=12, heads=12, batch=4, length=64),
       "11": dict(vocab=256, positions=96, width=96, blocks=3, heads=6, batch=12, length=96)}
LLAMA = {"12a": dict(vocab=512, width=64, hidden=172, blocks=5, heads=8, kv_heads=4, positions=512, length=200),
         "12b": dict(vocab=30000, width=384, hidden=1024, blocks=6, heads=6, kv_heads=6, positions=512, length=100)}
ATTENTION = dict(batch=1, heads=8, length=2048, width=64)

# Case 10, a BERT of MiniLM's shape: BATCHES batches of BATCH sequences; 10c and 10d go over them EPOCHS times.
MINILM = dict(width=384, blocks=6, heads=12, hidden=1536)
EPOCHS, BATCHES, BATCH, LENGTH, CLASSES = 5, 4, 16, 128, 150
