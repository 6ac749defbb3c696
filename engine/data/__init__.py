"""Data sets and the loader that shuffles and batches them."""

from ulpgrad.data.cifar10 import cifar10
from ulpgrad.data.dataset import ArrayDataset, Dataset
from ulpgrad.data.digits import digits
from ulpgrad.data.loader import DataLoader
from ulpgrad.data.mnist import mnist

__all__ = ["ArrayDataset", "DataLoader", "Dataset", "cifar10", "digits", "mnist"]
