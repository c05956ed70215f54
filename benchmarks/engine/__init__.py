"""Section "engine": time, peak memory and exactness of the meta level, beside plain training and beside Betty.

    BETTY=/path/to/betty make bench                  # everything; under half an hour on 2 cores
    python -m benchmarks engine --quick              # under a minute: that everything runs
    python -m benchmarks.engine --problems mlp --arms auto,ghost --parts time --repeats 5
    python -m benchmarks.engine --device cuda        # float32 and bfloat16, BERT-base too

BETTY names a checkout of https://github.com/leopard-ai/betty at its last commit (cb6221f). It needs no edits: what
stands between it and the torch of today is told in ``betty.py``. Without BETTY its arms are left out, and the report
says so. On a machine that others use too, ``--threads 1 --clock cpu`` counts processor time instead.
"""
