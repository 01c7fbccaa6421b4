"""HTML pages from templates of the package."""

import jinja2


def render(folder, template="page.html.j2", **values):
    """Returns the page that a template in a folder makes of values, as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
