"""The targets of the learners: latent quality and length, with missing outcomes imputed, and a prior per model."""
