"""Train and evaluate QDFormer, with all of Detectron2's flags.

train_net.py --config-file configs/qdformer_swin_t.yaml [--eval-only] [--resume] [KEY VALUE ...]
torchrun --nproc-per-node 2 --max-restarts 3 train_net.py --config-file ... [KEY VALUE ...]
"""

import argparse
import multiprocessing
import os
import signal
import sys

from detectron2.engine import default_argument_parser, launch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.checkpoint.metadata import run_metadata
from qdformer.commands import runner
from qdformer.config.loading import load_config
from qdformer.config.validation import check_gpus
from qdformer.engine.processes import is_launched, is_restarted, join_processes
from qdformer.engine.setup import setup
from qdformer.engine.trainer import Trainer
from qdformer.errors import InputError, is_input_error, one_line_message
from qdformer.modeling.inference_fusion import fuse_for_inference


def train(args: argparse.Namespace) -> dict | None:
    """Train or evaluate; run in every process.

    Returns:
        The metrics of the last evaluation.
    """
    runner.import_extensions(args.imports)
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = AVSCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            complete=True,
            description=run_metadata(cfg, cfg.DATASETS.TEST[0]),
        )
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        if cfg.MODEL.QDFORMER.FAST_INFERENCE:
            fuse_for_inference(model)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def stop_children(number: int, _frame) -> None:
    """Hand a signal on to the processes that train, which save and stop."""
    for child in multiprocessing.active_children():
        if child.pid is not None:
            os.kill(child.pid, number)


def parser() -> argparse.ArgumentParser:
    """Detectron2's command line, ``--import`` and ``--save-predictions``."""
    result = default_argument_parser(epilog=__doc__)
    runner.add_import_flag(result)
    result.add_argument(
        "--save-predictions", action="store_true", help="write the masks of evaluated sets"
    )
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line, in as many processes as it asks for.

    Args:
        argv: None for the process's own.
    """
    arguments = parser().parse_args(argv)
    if arguments.save_predictions:
        arguments.opts += ["TEST.SAVE_PREDICTIONS", "True"]
    if arguments.num_gpus * arguments.num_machines > 1:
        signal.signal(signal.SIGTERM, stop_children)
    try:
        if is_launched():
            arguments.resume |= is_restarted()
            device = load_config(arguments.config_file, arguments.opts).MODEL.DEVICE
            with join_processes(device):
                train(arguments)
            return
        # Before processes are started, of which each would say so.
        check_gpus(arguments.num_gpus)
        launch(
            train,
            arguments.num_gpus,
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            args=(arguments,),
        )
    except ProcessExitedException as error:
        sys.exit(error.exit_code)
    except (InputError, ProcessRaisedException) as error:
        # With several GPUs the error of one process arrives as the text of its traceback.
        if not is_input_error(error):
            raise
        if os.environ.get("RANK", "0") != "0":
            sys.exit(1)  # the first process says it for all
        sys.exit(f"train_net: {one_line_message(error)}")


if __name__ == "__main__":
    main()
