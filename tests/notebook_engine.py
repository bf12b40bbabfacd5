"""Run notebooks in this process: kernels that only load torch would take longer than the notebooks."""

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from papermill.engines import Engine, papermill_engines


class InProcessEngine(Engine):
    """Executes cells as a kernel does, with their outputs, one notebook after another."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
        shell = InteractiveShell.instance()
        shell.reset()
        nb_man.nb.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
        for index, cell in enumerate(nb_man.nb.cells):
            if cell.cell_type == "code":
                nb_man.cell_start(cell, index)
                with capture_output() as captured:
                    result = shell.run_cell(cell.source, store_history=True)
                cell.outputs = [
                    nbformat.v4.new_output("display_data", data=shown.data, metadata=shown.metadata)
                    for shown in captured.outputs
                ]
                result.raise_error()
                nb_man.cell_complete(cell, index)


papermill_engines.register(None, InProcessEngine)
