"""Federated averaging (McMahan et al., Communication-Efficient Learning of Deep Networks from
Decentralized Data, 2017; with LoRA: Zhang et al., Towards Building the Federated GPT, 2023).

    A <- sum p_k A_k,    B <- sum p_k B_k,    p_k = n_k / sum n   over the replies of the round

The mean of the factors is not the factor of the mean: sum p_k B_k A_k - B A is the covariance of
the clients' factors, which every round's ``residual`` shows. The app has this method written out
in strategy.py; this is the same for whoever builds on the library's classes.
"""

from flowertune.methods.base import MethodServer

Server = MethodServer
