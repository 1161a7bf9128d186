"""Train and evaluate QDFormer, with all of Detectron2's flags.

train_net.py --config-file configs/qdformer_swin_t.yaml [--eval-only] [--resume] [KEY VALUE ...]
"""

import multiprocessing
import os
import signal
import sys

# First: makes Detectron2 importable and registers the models.
import qdformer.qdformer  # noqa: F401
from detectron2.engine import default_argument_parser, launch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from qdformer.engine.checkpointer import AVSCheckpointer
from qdformer.engine.description import describe
from qdformer.engine.setup import setup
from qdformer.engine.trainer import Trainer
from qdformer.errors import InputError, is_input_error, sentence
from qdformer.modeling.acceleration import accelerate


def main(args):
    """Run in every process."""
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = AVSCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            complete=True,
            description=describe(cfg, cfg.DATASETS.TEST[0]),
        )
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        if cfg.MODEL.QDFORMER.FAST_INFERENCE:
            accelerate(model)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def stop_children(number: int, _frame) -> None:
    """Hand a signal on to the processes that train, which save and stop."""
    for child in multiprocessing.active_children():
        os.kill(child.pid, number)


if __name__ == "__main__":
    arguments = default_argument_parser(epilog=__doc__).parse_args()
    if arguments.num_gpus > 1:
        signal.signal(signal.SIGTERM, stop_children)
    try:
        launch(
            main,
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
        sys.exit(f"train_net.py: {sentence(error)}")
