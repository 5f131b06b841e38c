"""The colours that classes are shown in, here and in files that hold colours."""

import colorsys

Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = tuple(
    (code >> 16, code >> 8 & 255, code & 255)
    for code in (
        *(0xE69F00, 0x56B4E9, 0xF0E442, 0x009E73, 0xD55E00, 0x0072B2, 0xCC79A7, 0x5500FF),
        *(0x5566EE, 0x00FF88, 0xBB0033, 0x00FFFF, 0xAAEEBB, 0x991177, 0x88AA55, 0x7799FF),
        *(0x8800BB, 0x99DD55, 0xBB1100, 0x884455, 0xFF6688, 0xCC00AA, 0x5544EE, 0x22BBCC),
    )
)
"""Colours of the classes 1, 2, …: the seven of Okabe and Ito ("Color Universal Design", 2008), then, one by one, the
colour farthest in CIE Lab from all before it for normal, protanopic and deuteranopic eyes alike; none is near grey."""


def colour(index: int) -> Colour:
    """Return the colour of class ``index`` (from 1): the palette's, then one of a hue not met before."""
    if index <= len(PALETTE):
        return PALETTE[index - 1]
    hue = index * 0.618034 % 1  # steps of the golden ratio never meet an old hue
    red, green, blue = colorsys.hsv_to_rgb(hue, (1.0, 0.6)[index % 2], (1.0, 0.8, 0.6)[index % 3])
    return round(255 * red), round(255 * green), round(255 * blue)
