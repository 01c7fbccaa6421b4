# What editors and type checkers see of the names that __init__.py imports when they
# are first used.
from keras_resnet.edge.exporter import export as export
from keras_resnet.edge.page.writer import write_page as write_page
from keras_resnet.runner import Classifier as Classifier
from keras_resnet.runner import Detector as Detector
from keras_resnet.runner import Segmenter as Segmenter

QUANTIZATIONS: tuple[str, ...]
