"""Which labels are wrong, as a calibrated probability: the evidence on every example, and a detector fitted to it.

The weights of a curation say what helps the meta loss; which label is wrong is another question. Here a detector
answers it, fitted on the trusted examples: P(true label = c | evidence) for every example and class. Six kinds of
evidence, none of them from a model that saw a trusted example's own trusted label:

| evidence | file | strong where |
|---|---|---|
| how the base training went: averaged p, margin, spread, forgetting | ``dynamics`` | noise without system |
| small networks trained on the trusted examples alone, cross-fitted | ``ensemble`` | noise by rules |
| a new last layer on the base network's representation, cross-fitted | ``heads`` | few trusted examples |
| labels of the nearest neighbours in that representation | ``neighbours`` | noise without system |
| votes of labelling functions, each judged by the trusted examples, cross-fitted | ``votes`` | weak labels |
| the given class itself | ``detector`` | noise of some classes |

The trusted examples take part in the base training under their *given* labels, as every other example does
(``witnesses``), so that what is seen of them is what is seen of the rest. Where the data delivered no given label for
them, one is planted that imitates the data's own noise: drawn from what the base network itself predicts early on.
"""
