# shellcheck shell=bash
# Part of download.sh: benchmarks other than POPE and CHAIR, each in its own folder.
#
# Question files are fetched from one commit of their authors' repository and checked by bytes and
# SHA-256. What has no licence that allows it, or no stable address, is not fetched; the script
# prints what to do instead.

RAW=https://raw.githubusercontent.com
AMBER_URL=${AMBER_URL:-$RAW/junyangwang0410/AMBER/534babf6bbfcce2e735c26289dedfb21cef3c939/data}
SEEM_URL=${SEEM_URL:-$RAW/RUCAIBox/POPE/3df3ba1b110ecce25696989577fad583b67d4239/output/seem}
HB_COMMIT=744007c232c292942c7f80eb61edb2465482da31
HALLUSIONBENCH_URL=${HALLUSIONBENCH_URL:-$RAW/tianyi-lab/HallusionBench/$HB_COMMIT}
DASH_B_URL=${DASH_B_URL:-$RAW/YanNeu/DASH-B/1538d01da15ef152dca8a8405da3f9444e26661d/images}

# benchmark_sums NAME: print bytes and sha256 of a file, as in the commits above.
benchmark_sums() {
  case $1 in
    amber/query_all.json)
      echo 1844750 127680ae61f7d4a92d2f7f07a8deaec07f0689b194d2c7c0f41ead7bd2c5bcf5 ;;
    amber/query_generative.json)
      echo 106220 b7e4c36596126ee36d2c3922638b7fa98743c26efda78fea2315f4425258d087 ;;
    amber/query_discriminative.json)
      echo 1738529 1502887ac020f4bb7ea564af4e37bddcb030d61b78490d00f9da492a2307abb8 ;;
    amber/annotations.json)
      echo 1813301 db22a436c4836fbb295e60b4e80d519573077579fb7032f01b193c1bd022b797 ;;
    amber/relation.json)
      echo 12699 c4c1491e9bbc3209abc1888c12a1bf8413bdbab8a0d8be04b990a2e7680cf23e ;;
    amber/safe_words.txt)
      echo 57 f92cf1123f4578a2630832fac3e6ac4de36212ea55859d3bed4fd233723f4043 ;;
    seem/aokvqa_pope_seem_random.json)
      echo 495827 f06eecde6d6ef4a00b95a7bbb510490708a09a6a67d952b59b8bdd33ac2c7200 ;;
    seem/aokvqa_pope_seem_popular.json)
      echo 492597 2ae5bedee3450cda52f9b033942c7b04a3917a86a110e859a66c1e41934c6ffd ;;
    seem/aokvqa_pope_seem_adversarial.json)
      echo 494039 2ddd3bdfa0df7a77a2cb1765ed06ac5ed190b5a093aa405b96986e862e8cdac1 ;;
    seem/gqa_pope_seem_random.json)
      echo 441272 6ce488eade3770185034939fabfe742fa32ed369011c8d9c3ac77bc0c85abd94 ;;
    seem/gqa_pope_seem_popular.json)
      echo 438334 dd03f06a458dd216e83233160fbf6628af9c63c84b11e99599f4fc0304b3361d ;;
    seem/gqa_pope_seem_adversarial.json)
      echo 439786 74e01b41d8308e2392e3b8d961167496ff3901c01100265d931a7a392f138a7a ;;
    hallusionbench/HallusionBench.json)
      echo 431987 ca6e0fb677dd56e5fb0e2700d06c58d01f8a6ae66e0f1773b2ac48c0a095d051 ;;
    dash-b/images/dash_benchmark_neg.json)
      echo 42487 29d9afa611083f3becdc64e4c30a1783a6c8be9bf6d335a12b124c50ad2876ed ;;
    dash-b/images/dash_benchmark_pos.json)
      echo 32227 fe261c2b9463e27034aea34368330ae4645cfd3bc0feca907240eb5160517829 ;;
  esac
}

# pictures_note NAME FILE WHERE WHY: print how to get pictures, unless FILE exists.
pictures_note() {
  if [[ -e $2 ]]; then return 0; fi
  say "note: $1's pictures are not fetched ($4): get them from $3, so that $2 is there."
}

amber() {
  local name failed=0
  for name in query/query_{all,generative,discriminative}.json annotations.json relation.json \
    safe_words.txt; do
    questions "amber/${name##*/}" "$AMBER_URL/$name" "$DIR/${name##*/}" || failed=1
  done
  pictures_note AMBER "$DIR/image/AMBER_1.jpg" \
    "the link in the README of github.com/junyangwang0410/AMBER" "a shared drive, no stable address"
  return "$failed"
}

seem() {
  local name kind failed=0
  for name in aokvqa gqa; do
    for kind in random popular adversarial; do
      kind=${name}_pope_seem_$kind.json
      questions "seem/$kind" "$SEEM_URL/$name/$kind" "$DIR/$kind" || failed=1
    done
  done
  say "note: A-OKVQA's pictures are COCO's val2014 (--only images); GQA's are images.zip of" \
    "GQA's own site (about 20 GB), which is not fetched."
  return "$failed"
}

hallusionbench() {
  local failed=0
  questions hallusionbench/HallusionBench.json "$HALLUSIONBENCH_URL/HallusionBench.json" \
    "$DIR/HallusionBench.json" || failed=1
  pictures_note HallusionBench "$DIR/VD/illusion/0_0.png" \
    "hallusion_bench.zip, linked in the README of github.com/tianyi-lab/HallusionBench" \
    "a shared drive, no stable address"
  return "$failed"
}

dash_b() {
  local side failed=0
  say "note: DASH-B states no licence; see github.com/YanNeu/DASH-B for what its authors allow."
  for side in neg pos; do
    questions "dash-b/images/dash_benchmark_$side.json" "$DASH_B_URL/dash_benchmark_$side.json" \
      "$DIR/images/dash_benchmark_$side.json" || failed=1
  done
  for side in neg pos; do
    pictures_note DASH-B "$DIR/images/$side" \
      "$side.zip, linked in the README of github.com/YanNeu/DASH-B, unpacked in $DIR/images" \
      "pages of the web, no licence"
  done
  return "$failed"
}

# by_user NAME FILE WHY HOW: what this script never fetches; fails unless the file is there.
by_user() {
  if [[ -e $2 ]]; then
    say "$2: there"
    return 0
  fi
  say "error: $1 is not fetched ($3): $4, so that $2 is there."
  return 1
}

# mme FOLDER: print where to get it.
mme() {
  by_user MME "$1/MME_Benchmark_release_version/existence" \
    "it states no licence" "get MME_Benchmark_release_version.zip as described at \
github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation; unpack it in $1"
}

# mmhal FOLDER: print where to get it.
mmhal() {
  local failed=0
  by_user MMHal-Bench "$1/response_template.json" \
    "no address of it stays the same" "get the data set Shengcao1006/MMHal-Bench, which \
github.com/llava-rlhf/LLaVA-RLHF names, and put its template into $1" || failed=1
  pictures_note MMHal-Bench "$1/images" \
    "the data set, or from the addresses in the template (image_src), each under its last part" \
    "some addresses are dead"
  return "$failed"
}
