"""The coded concepts of the reports (PS3.16), by the names that the standard gives them.

They are written out because importing pydicom.sr.codes takes two seconds in each process.
"""

from typing import NamedTuple


class Code(NamedTuple):
    """A concept in a coding scheme."""

    value: str
    scheme: str  # DCM, SCT (SNOMED CT), UCUM (units) or RFC5646 (languages)
    meaning: str  # at most 64 characters


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


LANGUAGE = _dcm("121049", "Language of Content Item and Descendants")
ENGLISH = Code("en", "RFC5646", "English")

PERCENT = Code("%", "UCUM", "Percent")
MICROMETER = Code("um", "UCUM", "micrometer")
PIXELS = Code("{pixels}", "UCUM", "pixels")

# The report and its parts: TID 4000, 4001, 4003, 4015 to 4018
MAMMOGRAPHY_CAD_REPORT = _dcm("111036", "Mammography CAD Report")
IMAGE_LIBRARY = _dcm("111028", "Image Library")
FINDINGS_SUMMARY = _dcm("111017", "CAD Processing and Findings Summary")
WITHOUT_FINDINGS = _dcm("111241", "All algorithms succeeded; without findings")  # CID 6047
WITH_FINDINGS = _dcm("111242", "All algorithms succeeded; with findings")
INCOMPLETE_WITHOUT_FINDINGS = _dcm("111243", "Not all algorithms succeeded; without findings")
INCOMPLETE_WITH_FINDINGS = _dcm("111244", "Not all algorithms succeeded; with findings")
NOTHING_SUCCEEDED = _dcm("111245", "No algorithms succeeded; without findings")
INDIVIDUAL_IMPRESSION = _dcm("111034", "Individual Impression/Recommendation")
SUMMARY_OF_DETECTIONS = _dcm("111064", "Summary of Detections")
SUMMARY_OF_ANALYSES = _dcm("111065", "Summary of Analyses")
SUCCEEDED = _dcm("111222", "Succeeded")  # CID 6042
PARTIALLY_SUCCEEDED = _dcm("111223", "Partially Succeeded")
FAILED = _dcm("111224", "Failed")
SUCCESSFUL_DETECTIONS = _dcm("111063", "Successful Detections")
SUCCESSFUL_ANALYSES = _dcm("111062", "Successful Analyses")
FAILED_DETECTIONS = _dcm("111025", "Failed Detections")
FAILED_ANALYSES = _dcm("111024", "Failed Analyses")
DETECTION_PERFORMED = _dcm("111022", "Detection Performed")
ANALYSIS_PERFORMED = _dcm("111004", "Analysis Performed")
ANALYSIS_OF_A_BREAST = _dcm("111233", "Individual Impression / Recommendation Analysis")  # CID 6043
ANALYSIS_OF_THE_EXAM = _dcm("111234", "Overall Impression / Recommendation Analysis")

# What is said of a breast or a finding: TID 4002, 4006, 4013, 4019, 4021
RENDERING_INTENT = _dcm("111056", "Rendering Intent")
PRESENTATION_REQUIRED = _dcm(
    "111150", "Presentation Required: Rendering device is expected to present"
)
IMPRESSION = _dcm("111033", "Impression Description")
SINGLE_IMAGE_FINDING = _dcm("111059", "Single Image Finding")
SELECTED_REGION = _dcm("111099", "Selected region")  # CID 6014
REGION_DESCRIPTION = _dcm("111058", "Selected Region Description")
CERTAINTY = _dcm("111012", "Certainty of Finding")
LESION = _sct("52988006", "Lesion")
PROBABILITY_OF_CANCER = _dcm("111047", "Probability of cancer")
CENTER = _dcm("111010", "Center")
OUTLINE = _dcm("111041", "Outline")
ALGORITHM_NAME = _dcm("111001", "Algorithm Name")
ALGORITHM_VERSION = _dcm("111003", "Algorithm Version")
ALGORITHM_PARAMETERS = _dcm("111002", "Algorithm Parameters")

# What is said of an image: TID 4020
IMAGE_LATERALITY = _dcm("111027", "Image Laterality")
IMAGE_VIEW = _dcm("111031", "Image View")
IMAGE_VIEW_MODIFIER = _dcm("111032", "Image View Modifier")
ORIENTATION_OF_ROWS = _dcm("111044", "Patient Orientation Row")
ORIENTATION_OF_COLUMNS = _dcm("111043", "Patient Orientation Column")
STUDY_DATE = _dcm("111060", "Study Date")
STUDY_TIME = _dcm("111061", "Study Time")
HORIZONTAL_SPACING = _dcm("111026", "Horizontal Pixel Spacing")
VERTICAL_SPACING = _dcm("111066", "Vertical Pixel Spacing")
ROWS = _dcm("110910", "Pixel Data Rows")
COLUMNS = _dcm("110911", "Pixel Data Columns")

# Of a TID 1500 report: TID 1500, 1600
IMAGE_LIBRARY_GROUP = _dcm("126200", "Image Library Group")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = _dcm("121106", "Comment")
MODALITY = _dcm("121139", "Modality")
MAMMOGRAPHY = _dcm("MG", "Mammography")  # CID 29

SOURCE_IMAGE = _dcm("121322", "Source image for image processing operation")  # CID 7202

BREASTS = {  # CID 6022
    "L": _sct("80248007", "Left breast"),
    "R": _sct("73056007", "Right breast"),
}
BREAST = _sct("76752008", "Breast")
SIDES = {"L": _sct("7771000", "Left"), "R": _sct("24028007", "Right")}  # CID 244

VIEWS = {  # CID 4014, by the acronyms of mammo.dicom.view
    "CC": _sct("399162004", "cranio-caudal"),
    "MLO": _sct("399368009", "medio-lateral oblique"),
    "ML": _sct("399260004", "medio-lateral"),
    "LM": _sct("399352003", "latero-medial"),
    "LMO": _sct("399099002", "latero-medial oblique"),
    "FB": _sct("399196006", "caudo-cranial (from below)"),
    "SIO": _sct("399188001", "superolateral to inferomedial oblique"),
    "ISO": _sct("441555000", "inferomedial to superolateral oblique"),
    "XCCL": _sct("399192008", "cranio-caudal exaggerated laterally"),
    "XCCM": _sct("399101009", "cranio-caudal exaggerated medially"),
}

_MODIFIERS = (  # CID 4015, and the code that it had in SNOMED's predecessor
    ("R-102D2", _sct("399161006", "Cleavage")),
    ("R-102D1", _sct("399011000", "Axillary Tail")),
    ("R-102D3", _sct("399197002", "Rolled Lateral")),
    ("R-102D4", _sct("399226006", "Rolled Medial")),
    ("R-102CA", _sct("414493004", "Rolled Inferior")),
    ("R-102C9", _sct("415670009", "Rolled Superior")),
    ("R-102D5", _sct("399209000", "Implant Displaced")),
    ("R-102D6", _sct("399163009", "Magnification")),
    ("R-102D7", _sct("399055006", "Spot Compression")),
    ("R-102C2", _sct("399110001", "Tangential")),
    ("R-40AB3", _sct("442581004", "Nipple in profile")),
    ("P2-00161", _sct("441752004", "Anterior compression")),
    ("R-40ABE", _sct("442593008", "Infra-mammary fold")),
    ("R-40AB2", _sct("442580003", "Axillary tissue")),
)
VIEW_MODIFIERS = {value: code for old, code in _MODIFIERS for value in (old, code.value)}
