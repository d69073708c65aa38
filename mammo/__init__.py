"""The science: DICOM, images, networks, metrics. Knows no DVC, no Prefect and no MLflow."""
