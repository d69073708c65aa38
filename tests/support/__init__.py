"""What tests of several folders use; several modules run in processes of their own."""

import stages  # noqa: F401  (pins what libraries read as they load: before one of these modules loads one)
