"""XGBoost: boosted trees, as SageMaker's XGBoost container leaves and answers them."""
