from app.lab import Lab


def results_page(lab: Lab) -> None: ...
