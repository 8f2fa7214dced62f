set MODEL=D:\models\base.safetensors
accelerate launch train_text_to_image_lora_sdxl.py ^
  --pretrained_model_name_or_path="%MODEL%" ^
  --train_data_dir="D:\pictures\cat" ^
  --rank=16 --lr_scheduler=cosine --lr_warmup_steps=100 ^
  --center_crop --use_8bit_adam --validation_prompt "a cat" --lernrate=3
