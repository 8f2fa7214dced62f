"""How are pictures noised, at which timesteps, and what is to be predicted of them?"""
