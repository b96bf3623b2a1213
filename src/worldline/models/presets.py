"""The numbers of every preset; facts about published models, each with its source.

Architecture, latent statistics, schedules and licences: facts, lingbot_model sections 1 to 9. What
is a choice of ours rather than a fact is marked so.
"""

from __future__ import annotations

import msgspec

from worldline.core.camera import Rig
from worldline.models.lingbot.params import ACTION_CHANNELS, CAMERA_CHANNELS, DiTParams
from worldline.models.pocket.params import POCKET_TEXT, POCKET_VAE
from worldline.models.preset import Preset, Sampler
from worldline.models.wan.params import TinyDecoderParams, UMT5Params, WanVAEParams

DIT_14B = DiTParams(
    dim=5120,
    ffn_dim=13824,
    num_heads=40,
    num_layers=40,
    in_dim=36,
    out_dim=16,
    freq_dim=256,
    text_dim=4096,
    text_len=512,
    eps=1e-6,
    control_dim=CAMERA_CHANNELS,
)
DIT_14B_ACTION = msgspec.structs.replace(DIT_14B, control_dim=ACTION_CHANNELS)
DIT_1_3B = msgspec.structs.replace(DIT_14B, dim=1536, ffn_dim=8960, num_heads=12, num_layers=30)

# fmt: off
WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on

WAN_VAE = WanVAEParams(
    dim=96,
    z_dim=16,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    temporal_downsample=(False, True, True),
    mean=WAN_MEAN,
    std=WAN_STD,
)
# The published preview decoder of the same latents (TAEHV, MIT).
TAEW2_1 = TinyDecoderParams(
    latent_channels=16, widths=(256, 128, 64, 64), doubles=(False, True, True)
)
UMT5_XXL = UMT5Params(
    vocab=256384,
    dim=4096,
    dim_attn=4096,
    dim_ffn=10240,
    num_heads=64,
    num_layers=24,
    num_buckets=32,
    max_distance=128,
    eps=1e-6,
)

# Indices of the four-step tables; the command lines of both releases pass shift 10.
STEPS_V1 = (0, 179, 358, 679)
STEPS_V2 = (0, 250, 500, 750)
DMD_V1 = Sampler(kind="dmd", schedule="official", shift=10.0, steps=STEPS_V1)
DMD_V2 = Sampler(kind="dmd", schedule="official", shift=10.0, steps=STEPS_V2)
GUIDED_STEPS = 70
PRETRAIN_STEPS = 40  # per chunk, of the causal network before distillation
GUIDED = Sampler(
    kind="unipc",
    schedule="official",
    shift=10.0,
    steps=tuple(1000 * i // GUIDED_STEPS for i in range(GUIDED_STEPS)),
    guidance=5.0,
    boundary=0.947,
)

# Our own words for what both releases list in Chinese, the language of their captions: faults of
# light and detail, writing, cuts and shaking, deformed things, people in what is a place. The
# causal release has a shorter list than the base release. --negative-prompt takes any other.
NEGATIVE_PROMPT = (
    "过度曝光，曝光不足，颜色失真，画面发灰，细节丢失，画质低劣，压缩痕迹，噪点，模糊，字幕，文字，水印，"
    "标志，绘画风格，三维渲染风格，静止画面，镜头突变，镜头抖动，闪烁，卡顿，结构扭曲，物体变形，物体融化，"
    "不合逻辑的空间，多余的肢体，畸形的手，畸形的脸，拥挤的人群，行人，车辆"
)
NEGATIVE_PROMPT_CAUSAL = (
    "曝光错误，画质低劣，模糊，字幕，水印，静止画面，镜头突变，闪烁，结构扭曲，物体变形"
)

SIZES_480P = ((832, 480), (480, 832))
SIZES = (*SIZES_480P, (1280, 720), (720, 1280))
APACHE = "Apache-2.0"
NON_COMMERCIAL = "CC BY-NC-SA 4.0"
V2_NOTICE = (
    "LingBot-World v2 weights are licensed CC BY-NC-SA 4.0: credit Robbyant, no commercial use, "
    "and share what you make from them under the same terms. The licence covers the weights, not "
    "Worldline. https://creativecommons.org/licenses/by-nc-sa/4.0/"
)
BASE_HUB_ID = "robbyant/lingbot-world-base-cam"
PARTS_BYTES = 11_900_000_000  # text encoder in bfloat16, VAE in float32, tokenizer

FAST = Preset(
    name="lingbot-world-fast",
    title="LingBot-World fast, 14B, camera control",
    family="lingbot",
    dit=DIT_14B,
    vae=WAN_VAE,
    text=UMT5_XXL,
    width=832,
    height=480,
    sizes=SIZES,
    fps=16,
    # The official code keeps everything (-1, sink 0), which no live session can; these are the
    # numbers of the converted release's config, which other servers run too.
    chunk=3,
    window=18,
    sink=9,
    sampler=DMD_V1,
    rig=Rig(),
    licence=APACHE,
    download_bytes=74_200_000_000 + PARTS_BYTES,
    hub_id="robbyant/lingbot-world-fast",
    parts_hub_id=BASE_HUB_ID,
    hub_aliases=(
        "robbyant/lingbot-world-fast-diffusers",
        "FastVideo/LingBot-World-Fast-Diffusers",
    ),
)

V2_14B = msgspec.structs.replace(
    FAST,
    name="lingbot-world-v2-14b",
    title="LingBot-World v2 causal fast, 14B, camera control",
    chunk=4,
    window=18,
    sink=6,
    sampler=DMD_V2,
    licence=NON_COMMERCIAL,
    notice=V2_NOTICE,
    hub_id="robbyant/lingbot-world-v2-14b-causal-fast",
    parts_hub_id=None,
    hub_aliases=("robbyant/lingbot-world-v2-14b-causal-fast-diffusers",),
)

V2_1_3B = msgspec.structs.replace(
    V2_14B,
    name="lingbot-world-v2-1.3b",
    title="LingBot-World v2 causal fast, 1.3B, camera control",
    dit=DIT_1_3B,
    sizes=SIZES_480P,
    download_bytes=6_900_000_000 + PARTS_BYTES,
    hub_id="robbyant/lingbot-world-v2-1.3b-causal-fast",
    # Its repository has the transformer only; the Wan VAE and UMT5 are the same in all releases.
    parts_hub_id=BASE_HUB_ID,
    hub_aliases=(),
)

BASE_CAM = msgspec.structs.replace(
    FAST,
    name="lingbot-world-base-cam",
    title="LingBot-World base, two 14B experts, camera control",
    # Bidirectional: one clip of 81 pixel frames is one chunk of 21 latent frames.
    chunk=21,
    window=-1,
    sink=0,
    sampler=GUIDED,
    experts=2,
    negative_prompt=NEGATIVE_PROMPT,
    download_bytes=2 * 74_200_000_000 + PARTS_BYTES,
    hub_id=BASE_HUB_ID,
    parts_hub_id=None,
    hub_aliases=(),
)

# The causal network before distillation: both branches of guidance, chunk by chunk.
V2_14B_PRETRAIN = msgspec.structs.replace(
    V2_14B,
    name="lingbot-world-v2-14b-pretrain",
    title="LingBot-World v2 causal, before distillation",
    sampler=msgspec.structs.replace(
        GUIDED,
        steps=tuple(1000 * i // PRETRAIN_STEPS for i in range(PRETRAIN_STEPS)),
        boundary=None,
    ),
    negative_prompt=NEGATIVE_PROMPT_CAUSAL,
    hub_id="robbyant/lingbot-world-v2-14b-causal-pretrain",
    hub_aliases=(),
)

BASE_ACT = msgspec.structs.replace(
    BASE_CAM,
    name="lingbot-world-base-act",
    title="LingBot-World base, two 14B experts, keys and rotation control",
    dit=DIT_14B_ACTION,
    hub_id="robbyant/lingbot-world-base-act-preview",
)

POCKET = Preset(
    name="pocket",
    title="The pocket world, made for CPUs",
    family="pocket",
    dit=DiTParams(
        dim=192,
        ffn_dim=576,
        num_heads=3,
        num_layers=6,
        in_dim=36,
        out_dim=16,
        freq_dim=64,
        text_dim=64,
        text_len=16,
        eps=1e-6,
        control_dim=CAMERA_CHANNELS,
    ),
    vae=POCKET_VAE,
    text=POCKET_TEXT,
    width=160,
    height=96,
    sizes=((160, 96),),
    fps=16,
    chunk=1,
    window=8,
    sink=0,
    sampler=Sampler(
        # The late fifth step keeps edges and columns that four let fade (recipes/pocket/evaluate).
        kind="euler",
        schedule="official",
        shift=5.0,
        steps=(0, 250, 500, 750, 900),
    ),
    # Its worlds were shown with at most this tilt; further up or down it has never looked.
    rig=Rig(yaw_deg=5.0, pitch_deg=3.0, pitch_limit_deg=18.0),
    licence=APACHE,
    download_bytes=0,
)

ALL = (POCKET, FAST, V2_14B, V2_1_3B, V2_14B_PRETRAIN, BASE_CAM, BASE_ACT)
