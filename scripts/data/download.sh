#!/usr/bin/env bash
# Fetch what the evaluations read: COCO val2014 images, COCO 2014 annotations, POPE questions,
# RePOPE labels, and other benchmarks' questions (benchmarks.sh).
#
# The folder data/COCO afterwards:
#   val2014/              40,504 images
#   annotations/          {instances,captions}_{train,val}2014.json, all of which CHAIR reads
#   pope-opera-2910/      the questions of OPERA and EAH: random 2,910, popular, adversarial 3,000
#   pope-official-3000/   the questions as POPE's authors publish them now: 3,000 of each
#   repope/               RePOPE's corrected labels of those: random 2,774, popular 2,727,
#                         adversarial 2,684

set -euo pipefail

usage() {
  cat <<'END'
Usage: bash scripts/data/download.sh [--dir FOLDER] [--only WHAT]...

Fetches COCO val2014 images (6.6 GB, and as much again while they are unpacked), COCO 2014
annotations (253 MB), POPE's question files (2 MB) and RePOPE's corrected labels (1 MB). Complete
files are skipped; rerun the command to resume an interrupted download. An archive
is removed once it is unpacked. Needs curl and unzip.

  --dir FOLDER     where to put it (default: data/COCO, or the folder below)
  --only WHAT      one of these; can be given several times (default: the four of COCO)
      images, annotations, pope, repope
      amber            data/AMBER: AMBER's questions, annotations and word lists (6 MB)
      seem             data/POPE: POPE's questions about A-OKVQA and GQA (3 MB)
      hallusionbench   data/HallusionBench: its questions (0.4 MB)
      dash-b           data/DASH-B: its lists of pictures (0.1 MB)
      mme, mmhal       data/MME, data/MMHal: nothing is fetched; says where to get it, and fails
                       unless it is there
                   Pictures of these are not fetched; it says where they are and where they go.

Environment variables, for mirrors:
  COCO_URL         folder of zips/val2014.zip and annotations/annotations_trainval2014.zip
  POPE_URL         folder of coco_pope_{random,popular,adversarial}.json, current release
  POPE_OPERA_URL   folder of the same three, OPERA's release
  REPOPE_URL       folder of coco_repope_{random,popular,adversarial}.json
  AMBER_URL, SEEM_URL, HALLUSIONBENCH_URL, DASH_B_URL
                   folder data/, output/seem/, the top and images/ of their repositories
  EXPECT           'NAME=NUMBER ...', for files that differ from the originals: bytes of
                   val2014.zip, annotations_trainval2014.zip and
                   pope-opera-2910/coco_pope_random.json (carriage returns not counted; its sha256
                   is then not checked), questions in pope-official-3000/coco_pope_random.json and
                   in repope/coco_repope_random.json (likewise), images in val2014, bytes of
                   amber/relation.json (likewise), seem/..., hallusionbench/..., dash-b/images/...
  TRIES            how often a file is asked for (default: 20)
  WAIT             seconds before the second time, twice as many before each further one, 60 at most
                   (default: 1)
  STALL            seconds after which a server that sends nearly nothing is left (default: 60)
END
}

COCO_URL=${COCO_URL:-http://images.cocodataset.org}
POPE_URL=${POPE_URL:-https://raw.githubusercontent.com/AoiDragon/POPE/main/output/coco}
POPE_OPERA_URL=${POPE_OPERA_URL:-https://raw.githubusercontent.com/shikiw/OPERA/main/pope_coco}
REPOPE_URL=${REPOPE_URL:-https://raw.githubusercontent.com/YanNeu/RePOPE/main/annotations}
here=${BASH_SOURCE[0]%/*}
if [[ $here == "${BASH_SOURCE[0]}" ]]; then here=.; fi # started as "bash download.sh"
# shellcheck source=scripts/data/benchmarks.sh
source "$here/benchmarks.sh"

# expected NAME: print what it should be: bytes, images or questions, and each sha256 that is known.
# Archives: the lengths that images.cocodataset.org announces, as public download logs show them.
# Images: COCO's count. OPERA's questions: computed from the copies in the EAH authors' repository,
# which end lines with LF. OPERA's own end them with CRLF and hold the same text; so carriage
# returns are left out. POPE's current files: computed from its repository's commit 08d957b,
# and from the copies that RePOPE keeps of them. RePOPE's: from its repository's commit bcf22e5.
expected() {
  local pair
  for pair in ${EXPECT:-}; do
    if [[ ${pair%%=*} == "$1" ]]; then
      echo "${pair#*=}"
      return
    fi
  done
  case $1 in
    val2014.zip) echo 6645013297 ;;
    val2014) echo 40504 ;;
    annotations_trainval2014.zip) echo 252872794 ;;
    pope-opera-2910/coco_pope_random.json)
      echo 357302 b65021b4425a6b2ae77703a39f19868978c2c2320379ea5e36600f0fc1e62a7c ;;
    pope-opera-2910/coco_pope_popular.json)
      echo 367234 7bb5ad04f3c58e13a726942a6779224f2f03520611d6733efb88fc597ccf3bb2 ;;
    pope-opera-2910/coco_pope_adversarial.json)
      echo 367459 9ca9c075445ce7fa090c7d191816584b23ad8ebad537e80229e5926fe07a6f76 ;;
    pope-official-3000/coco_pope_random.json)
      echo 3000 ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994 \
        196144ab005fcd23af78c7b11d7c110dbbc4ed17e361e05e11a927c8856cfde2 ;;
    pope-official-3000/coco_pope_popular.json)
      echo 3000 fa3a986eb3d586ceb527371112ad7170f398835cbe0a3f08a7e888771dbd8bd6 \
        f31727768b228d0409a3ffe86b808958c05c26b5db4d593b137b14a2ec45ac98 ;;
    pope-official-3000/coco_pope_adversarial.json)
      echo 3000 44bfb0b27f0d438e15164be7fea25addf46d31885be46e15af02fa7ffaa48b60 \
        85436f0517a167e8034013458d47507ea75b89da7853d380f13530399f7d4018 ;;
    repope/coco_repope_random.json)
      echo 2774 f464fcaf60b24ce2f280cf33f122e000dbdd35c8e88f77c4141c9c2cba864611 ;;
    repope/coco_repope_popular.json)
      echo 2727 57832b055bae5fd6176278a4f104c98ddd84811f7d26dfcb93d481f6c9da09a5 ;;
    repope/coco_repope_adversarial.json)
      echo 2684 8c346dbb060bf422ff92e769fa68e5ab3e8a777cb28a26e973387441e05c9ccf ;;
    *) benchmark_sums "$1" ;;
  esac
}

say() { echo "$*" >&2; }

# by_hand WHY FILE URL: print how to fetch a file without this script.
by_hand() { say "error: $1; fetch $3 by hand, put it at $2, and run this command again."; }

bytes_of() { if [[ -f $1 ]]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

images_in() { find -L "$1" -maxdepth 1 -name '*.jpg' | wc -l | tr -d ' '; }

sha256() {
  if command -v sha256sum >/dev/null; then
    sha256sum | cut -d ' ' -f 1
  elif command -v shasum >/dev/null; then
    shasum -a 256 | cut -d ' ' -f 1
  fi
}

# run COMMAND...: run it so that a signal ends it with this script: bash waits for others first.
run() {
  local status=0
  "$@" &
  CHILD=$!
  wait "$CHILD" || status=$?
  CHILD=
  return "$status"
}

# interrupted STATUS: end what is running and print how to resume.
# shellcheck disable=SC2329 # a trap calls it
interrupted() {
  trap '' INT TERM
  if [[ -n $CHILD ]]; then kill "$CHILD" 2>/dev/null || true; fi
  say "error: interrupted; what was fetched is kept, run this command again to resume."
  exit "$1"
}

# transfer LIMIT URL PART: append to PART what is missing of URL, and never more than LIMIT bytes.
# shellcheck disable=SC2329 # run calls it
transfer() {
  # --max-filesize uses the length that a server announces, which it may omit.
  trap '' XFSZ
  ulimit -f $(($1 / 1024 + 1))
  exec curl --fail --location --connect-timeout 30 --speed-limit 1000 --speed-time "$STALL" \
    --max-filesize "$1" --show-error "${PROGRESS[@]}" --continue-at - --output "$3" \
    --write-out '%{http_code}' "$2" >"$DIR/.status.part"
}

# fetch LIMIT URL PART: append to PART what is missing of URL; on failure WHY says why.
# curl's --retry throws away what a broken transfer has brought; so here a transfer that broke off
# is taken up again, a limited number of times.
fetch() {
  # shellcheck disable=SC2153 # WAIT is an environment variable, checked below
  local limit=$1 url=$2 part=$3 before status code try wait=$WAIT
  for ((try = 1; ; try++)); do
    before=$(bytes_of "$part")
    status=0
    run transfer "$limit" "$url" "$part" || status=$?
    code=$(cat "$DIR/.status.part" 2>/dev/null || true)
    rm -f "$DIR/.status.part"
    if ((status == 0)); then return 0; fi
    WHY="could not be fetched"
    if (($(bytes_of "$part") > limit)) || ((status == 63)); then
      WHY="could not be fetched: its server sends more than $limit bytes"
      return 1
    fi
    case $status in
      16 | 18 | 28 | 52 | 55 | 56 | 92) ;;
      22) if [[ ! $code =~ ^(408|429|5..)$ ]]; then return 1; fi ;;
      23)
        WHY="could not be written: make room if the disk is full"
        return 1
        ;;
      33) # the server can't resume: from the start
        ((before > 0)) || return 1
        rm "$part"
        ;;
      *) return 1 ;;
    esac
    if ((try >= TRIES)); then
      WHY="could not be fetched, its transfer broke off $try times; $(bytes_of "$part") bytes are"
      WHY+=" kept, run this command again to resume"
      return 1
    fi
    say "the transfer broke off; resuming from $(bytes_of "$part") bytes in $wait s"
    run sleep "$wait"
    wait=$((wait * 2 > 60 ? 60 : wait * 2))
  done
}

# folder_at FOLDER: have it.
folder_at() {
  if mkdir -p "$1" 2>/dev/null && [[ -w $1 ]]; then return 0; fi
  say "error: $1 can't be a folder that is written into; choose another --dir, or move away what" \
    "is there."
  return 1
}

# no_file FILE: refuse what exists but is not a file.
no_file() {
  if [[ ! -e $1 || -f $1 ]]; then return 1; fi
  say "error: $1 is not a file; move it away and run this command again."
}

# archive NAME URL: have DIR/NAME, of the right size.
archive() {
  local file=$DIR/$1 url=$2 want have
  want=$(expected "$1")
  if no_file "$file" || no_file "$file.part"; then return 1; fi
  have=$(bytes_of "$file")
  if ((have == want)); then return 0; fi
  if ((have > 0)); then
    say "error: $file has $have bytes instead of $want; remove it and run this command again."
    return 1
  fi
  if (($(bytes_of "$file.part") > want)); then rm "$file.part"; fi
  if (($(bytes_of "$file.part") < want)); then
    say "fetching $url ($want bytes)"
    # A little more than it should be: enough to say that it is another file.
    if ! fetch $((want + (1 << 20))) "$url" "$file.part"; then
      by_hand "$1 $WHY" "$file" "$url"
      return 1
    fi
  fi
  have=$(bytes_of "$file.part")
  if ((have != want)); then
    rm -f "$file.part"
    by_hand "$url sent $have bytes instead of $want" "$file" "$url"
    return 1
  fi
  mv "$file.part" "$file"
}

# unpack NAME INTO [MEMBER...]: unzip DIR/NAME into a new folder DIR/INTO.
unpack() {
  local zip=$DIR/$1 into=$DIR/$2
  say "unpacking $zip"
  rm -rf "$into"
  if ! run unzip -q "$zip" "${@:3}" -d "$into"; then
    rm -rf "$into"
    say "error: $zip can't be unpacked: make room if the disk is full, else remove it, and run" \
      "this command again."
    return 1
  fi
}

images() {
  local folder=$DIR/val2014 want have
  want=$(expected val2014)
  if [[ -e $folder && ! -d $folder ]]; then
    say "error: $folder is not a folder; move it away and run this command again."
    return 1
  fi
  if [[ -d $folder ]]; then
    have=$(images_in "$folder")
    if ((have == want)); then
      say "$folder: complete"
      return 0
    fi
    say "error: $folder holds $have images instead of $want; move it away and run this command" \
      "again, or choose another --dir."
    return 1
  fi
  archive val2014.zip "$COCO_URL/zips/val2014.zip" || return 1
  unpack val2014.zip val2014.part || return 1
  have=$(images_in "$folder.part/val2014")
  if ((have != want)); then
    say "error: $folder.zip holds $have images instead of $want; remove it and run this command" \
      "again."
    return 1
  fi
  mv "$folder.part/val2014" "$folder" && rm -r "$folder.part" "$folder.zip"
}

annotations() {
  local folder=$DIR/annotations name missing=0
  local names=(annotations/{instances,captions}_{train,val}2014.json)
  for name in "${names[@]}"; do
    if [[ ! -s $DIR/$name ]]; then missing=1; fi
  done
  if ((missing == 0)); then
    say "$folder: complete"
    return 0
  fi
  name=annotations_trainval2014.zip
  archive "$name" "$COCO_URL/annotations/$name" || return 1
  unpack "$name" annotations.part "${names[@]}" || return 1
  folder_at "$folder" &&
    mv "$folder.part/annotations/"* "$folder/" &&
    rm -r "$folder.part" "${DIR:?}/$name"
}

# fault NAME FILE: print what is wrong with a question file, if anything.
fault() {
  local want sums have what
  read -r want sums <<<"$(expected "$1")"
  if [[ $1 == pope-official-* || $1 == repope/* ]]; then
    what=questions
    have=$(grep -c '"label"' "$2" || true)
  else
    what='bytes, carriage returns not counted'
    have=$(tr -d '\r' <"$2" | wc -c | tr -d ' ')
  fi
  if ((have != want)); then
    echo "$have ${what%%,*} instead of $want${what#"${what%%,*}"}"
  elif [[ -n $sums ]]; then
    have=$(tr -d '\r' <"$2" | sha256)
    if [[ -n $have && " $sums " != *" $have "* ]]; then
      echo "sha256 $have instead of ${sums// / or }"
    fi
  fi
}

# questions NAME URL [FILE]: have the question file NAME, at DIR/NAME if not at FILE.
questions() {
  local name=$1 url=$2 file=${3:-$DIR/$1} wrong
  if [[ -f $file ]]; then
    wrong=$(fault "$name" "$file")
    if [[ -z $wrong ]]; then
      say "$file: complete"
      return 0
    fi
    say "error: $file has $wrong; remove it and run this command again."
    return 1
  fi
  if no_file "$file" || no_file "$file.part"; then return 1; fi
  folder_at "${file%/*}" || return 1
  rm -f "$file.part"
  say "fetching $url"
  if ! fetch "$QUESTION_BYTES" "$url" "$file.part"; then
    rm -f "$file.part"
    by_hand "$name ${WHY%;*}" "$file" "$url"
    return 1
  fi
  wrong=$(fault "$name" "$file.part")
  if [[ -n $wrong ]]; then
    rm "$file.part"
    by_hand "$url sent $wrong" "$file" "$url"
    return 1
  fi
  mv "$file.part" "$file"
}

pope() {
  local kind failed=0
  for kind in random popular adversarial; do
    questions "pope-opera-2910/coco_pope_$kind.json" \
      "$POPE_OPERA_URL/coco_pope_$kind.json" || failed=1
    questions "pope-official-3000/coco_pope_$kind.json" \
      "$POPE_URL/coco_pope_$kind.json" || failed=1
  done
  return "$failed"
}

repope() {
  local kind failed=0
  for kind in random popular adversarial; do
    questions "repope/coco_repope_$kind.json" "$REPOPE_URL/coco_repope_$kind.json" || failed=1
  done
  return "$failed"
}

for number in TRIES=20 WAIT=1 STALL=60; do
  name=${number%=*}
  if [[ ! ${!name:=${number#*=}} =~ ^[0-9]{1,4}$ ]]; then
    say "error: $name=${!name}, but it is a whole number of up to four digits."
    exit 2
  fi
done
QUESTION_BYTES=$((8 << 20)) # of any; those of today have 400,000

KINDS=(images annotations pope repope amber seem hallusionbench dash-b mme mmhal)
CHOSEN_DIR=
only=
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --dir | --only)
      if [[ -z ${2:-} ]]; then
        say "error: $1 needs a value; see --help."
        exit 2
      fi
      if [[ $1 == --dir ]]; then CHOSEN_DIR=$2; else only+=" $2"; fi
      shift 2
      ;;
    *)
      say "error: $1 is not an option; the options are --dir, --only and --help."
      exit 2
      ;;
  esac
done
for what in $only; do
  if [[ " ${KINDS[*]} " != *" $what "* ]]; then
    known=${KINDS[*]:0:9}
    say "error: --only $what, but it is ${known// /, } or ${KINDS[9]}."
    exit 2
  fi
done
for tool in curl unzip; do
  if ! command -v "$tool" >/dev/null; then
    say "error: $tool is not installed; install it and run this command again."
    exit 1
  fi
done
PROGRESS=(--silent)
if [[ -t 2 ]]; then PROGRESS=(--progress-bar); fi

# enter FOLDER: put files there from now on, or in --dir, and alone.
enter() {
  if [[ $DIR == "${CHOSEN_DIR:-$1}" ]]; then return 0; fi
  DIR=${CHOSEN_DIR:-$1}
  folder_at "$DIR" || exit 1
  # Two at once would write into one file. The lock ends with whoever has it open.
  exec 9<"$DIR"
  if command -v flock >/dev/null && ! flock --nonblock 9; then
    say "error: another download into $DIR is running; wait for it, or choose another --dir."
    exit 1
  fi
}

CHILD=
DIR=
WHY=
trap 'interrupted 130' INT
trap 'interrupted 143' TERM

failed=0
for what in ${only:-pope repope annotations images}; do
  case $what in
    images) enter data/COCO && images ;;
    annotations) enter data/COCO && annotations ;;
    pope) enter data/COCO && pope ;;
    repope) enter data/COCO && repope ;;
    amber) enter data/AMBER && amber ;;
    seem) enter data/POPE && seem ;;
    hallusionbench) enter data/HallusionBench && hallusionbench ;;
    dash-b) enter data/DASH-B && dash_b ;;
    mme) mme "${CHOSEN_DIR:-data/MME}" ;; # no folder is made for what is not fetched
    mmhal) mmhal "${CHOSEN_DIR:-data/MMHal}" ;;
  esac || failed=1
done
exit "$failed"
