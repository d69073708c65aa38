"""The science: DICOM, images, networks, metrics. Knows no DVC, no Prefect and no MLflow.

Importing it pins what numerical libraries read from the environment while they load: `mammo.pins`.
"""

from mammo.pins import set_pins

set_pins()
