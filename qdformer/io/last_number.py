"""Files in the order of time, by their names."""

import re


def last_number(name: str) -> int | None:
    """The last number in a name without its suffix, which frames are put in order by; None if there
    is none.
    """
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else None
