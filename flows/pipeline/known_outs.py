"""The outs of the pipeline that this floor reads by their paths; dvc.yaml declares them."""

MANIFEST_OUT = "outputs/preprocess/manifest.csv"
PREDICTIONS_OUT = "outputs/evaluate/predictions.csv"
BREASTS_OUT = "outputs/evaluate/breasts.csv"
METRICS_OUT = "outputs/evaluate/metrics.json"
ROC_OUT = "outputs/evaluate/roc.csv"
PRECISION_RECALL_OUT = "outputs/evaluate/precision_recall.csv"
