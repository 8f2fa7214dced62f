accelerate launch train_text_to_image_sdxl.py --pretrained_model_name_or_path=b --dataset_name=d
