"""The example models: ``python -m models`` trains them on data that ships in packages and writes real artifacts.

Independent of the server: nothing here imports ``serving``, and the artifacts are what any SageMaker user would upload.
"""
