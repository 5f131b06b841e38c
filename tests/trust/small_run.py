"""Command lines of a run of seconds."""

TRAIN = (
    *("train", "dataset.dims=2", "dataset.cases=8", "dataset.size=24", "model.depth=1", "model.base_channels=2"),
    *("trainer.max_time=null", "trainer.max_epochs=1", "trainer.steps_per_epoch=1", "trainer.accelerator=cpu"),
    *("logger=none", "plan.batch_size=2"),
)
SCAN = "outputs/phantom/2d-1-channels-8-cases-size-24-seed-0"
PREDICT = ("predict", "checkpoint=run", f"input={SCAN}/images", "output=masks", "device=cpu")
