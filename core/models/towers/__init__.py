"""The two towers that ``ovs-train pairs`` trains: images as features, and words as vectors in the same space."""
