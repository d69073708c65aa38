"""What tests of several folders use, some of it in processes of their own."""

import stages  # noqa: F401  (pins what libraries read as they load: before a module here loads one)
