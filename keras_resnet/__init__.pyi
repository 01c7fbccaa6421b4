# What editors and type checkers see of the names that __init__.py imports when they
# are first used.
from keras_resnet.inference import decode_predictions as decode_predictions
from keras_resnet.inference import preprocess_input as preprocess_input
from keras_resnet.model_metadata import load as load
from keras_resnet.models import ResNet as ResNet
from keras_resnet.models import ResNet8 as ResNet8
from keras_resnet.models import ResNet14 as ResNet14
from keras_resnet.models import ResNet16_224 as ResNet16_224
from keras_resnet.models import ResNet18 as ResNet18
from keras_resnet.models import ResNet20 as ResNet20
from keras_resnet.models import ResNet20_224 as ResNet20_224
from keras_resnet.models import ResNet32 as ResNet32
from keras_resnet.models import ResNet34 as ResNet34
from keras_resnet.models import ResNet44 as ResNet44
from keras_resnet.models import ResNet50 as ResNet50
from keras_resnet.models import ResNet56 as ResNet56
from keras_resnet.models import ResNet101 as ResNet101
from keras_resnet.models import ResNet110 as ResNet110
from keras_resnet.models import ResNet152 as ResNet152
from keras_resnet.models import ResNet1202 as ResNet1202
from keras_resnet.models import create_model as create_model
from keras_resnet.models import feature_maps as feature_maps
from keras_resnet.models import list_models as list_models
from keras_resnet.models import plain20 as plain20
from keras_resnet.models import plain32 as plain32
from keras_resnet.models import plain44 as plain44
from keras_resnet.preprocessing import Preprocessing as Preprocessing
from keras_resnet.sharing.push import push as push
from keras_resnet.weights.registry import list_weights as list_weights

__version__: str
