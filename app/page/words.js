/**
 * All words of the page, in English and in Chinese, and the glossary. `{name}` is filled in; `[text](term)` in a caption
 * explains itself on hover, focus or touch.
 */

import { h } from "./page.js";

/** name -> English and Chinese. */
const WORDS = {
  skip: ["Skip to the content", "跳到正文"],
  theme: ["Colours", "配色"],
  theme_auto: ["Auto", "自动"],
  theme_light: ["Light", "浅色"],
  theme_dark: ["Dark", "深色"],
  views: ["Steps", "步骤"],
  view_answer: ["Image", "图像"],
  view_network: ["Network", "网络"],
  view_unit: ["Unit", "单元"],
  view_torch: ["Torch", "手电"],
  view_evidence: ["Why", "为何"],
  view_training: ["Training", "训练"],
  api: ["API", "API"],

  loading: ["Loading…", "正在载入…"],
  computing: ["Computing…", "正在计算…"],
  unreachable: ["The service does not answer. Is it still running? Then try again.", "服务没有回应。它还在运行吗？确认后请重试。"],
  try_again: ["Try again", "重试"],
  no_image: ["Choose a picture first; then there is something to look into.", "请先选一张图片，才有东西可看。"],
  image_gone: ["The service no longer keeps this picture. Send it again to look into it.", "服务已不再保存这张图片，请重新发送。"],
  no_class: ["This network has no class {name}; its strongest answer is explained instead.", "这个网络没有“{name}”这一类，改为解释它最有把握的答案。"],
  says: ["The service says: {detail}", "服务的原话：{detail}"],

  answer_title: ["A picture becomes an answer", "一张图片如何变成答案"],
  answer_guide: ["To the network a picture is nothing but numbers: here {size} × {size} [pixels](pixel) with three each, {count} in all. Out of them it makes one number for each thing it knows, its [logit](logit), and [softmax](softmax) turns those into shares of 100 %.", "对网络来说，图片不过是一堆数：这里是 {size} × {size} 个[像素](pixel)，每个三个数，一共 {count} 个。网络据此为它认识的每样东西算出一个数，即 [logit](logit)，再由 [softmax](softmax) 变成合计 100% 的份额。"],
  drop: ["Drop a picture here, or paste one", "把图片拖到这里，或直接粘贴"],
  choose_file: ["Choose a file", "选择文件"],
  webcam: ["Use the camera", "用摄像头拍"],
  camera_take: ["Take the picture", "拍下"],
  camera_cancel: ["Cancel", "取消"],
  camera_none: ["No camera can be used here ({reason}). Browsers lend it only to https and localhost, if you allow it.", "这里不能用摄像头（{reason}）。浏览器只对 https 和 localhost 开放它，并需要你允许。"],
  examples: ["Or one of these, drawn by us", "或者用我们画的这些"],
  example_ship: ["Drawing of a freighter", "货轮的画"],
  example_airplane: ["Drawing of an airliner", "客机的画"],
  example_truck: ["Drawing of a lorry", "卡车的画"],
  example_frog: ["Drawing of a frog", "青蛙的画"],
  sending: ["Sending {name}…", "正在发送 {name}…"],
  classifying: ["Asking the network…", "正在询问网络…"],
  your_picture: ["your picture, {width} × {height}, {format}", "你的图片，{width} × {height}，{format}"],
  your_picture_gone: ["Only the browser window that sent a picture can show the original.", "只有发送图片的浏览器窗口才能显示原图。"],
  cannot_preview: ["Browsers cannot show this {format} file, but the network could read it.", "浏览器显示不了这个 {format} 文件，但网络读得了。"],
  what_it_sees: ["what the network sees, {size} × {size}", "网络看到的，{size} × {size}"],
  what_it_sees_alt: ["The {size} by {size} pixels that the network gets", "网络得到的 {size} 乘 {size} 个像素"],
  first_frame: ["Of an animation the first frame counts.", "动画只取第一帧。"],
  pixel_at: ["row {y}, column {x}:", "第 {y} 行第 {x} 列："],
  pixel_hint: ["Point at a pixel to read its three numbers.", "指向一个像素，读出它的三个数。"],
  red: ["red", "红"],
  green: ["green", "绿"],
  blue: ["blue", "蓝"],
  answer: ["The answer", "答案"],
  unknown_title: ["This is unlike anything that the network was shown.", "这不像网络见过的任何东西。"],
  known_says: ["Not [strange](strange) to it. That does not prove that it shows one of these: some things that it never saw look like what it knows.", "对它来说并不[陌生](strange)。但这不证明图里就是其中之一：有些它从未见过的东西看起来很像它认识的。"],
  unknown_short: ["unlike anything it knows", "不像它认识的任何东西"],
  unknown_says: ["Of 100 pictures of what it knows, at most {share} would be as [strange](strange) to it. It has to name one of its classes all the same: do not trust the shares below.", "在它认识的 100 张图片中，至多 {share} 张对它来说[像这张一样陌生](strange)。可它仍得从自己的类别里选一个，所以请别相信下面的份额。"],
  unknown_nearest: ["The nearest that it knows:", "它所认识的里面最接近的："],
  unknown_nearest_failed: ["The nearest pictures did not come.", "没能取得最接近的图片。"],
  answer_hint: ["Choose a class to explain it on every page.", "选一个类别，各页就都解释它。"],
  set_meaning: ["For {part} of {whole} pictures, the truth is among the names given here.", "每 {whole} 张图片中，有 {part} 张的真相就在这里给出的名称之中。"],
  set_more: ["one of {count} more", "另外 {count} 类之一"],
  set_any: ["any of the {count} classes", "{count} 类中的任何一类"],
  show_logits: ["Logits", "Logit"],
  all_classes: ["All {count} classes", "全部 {count} 类"],
  fewer_classes: ["The ten most probable", "最可能的十类"],
  explaining: ["Explain", "解释"],
  answered: ["{label}, {share}", "{label}，{share}"],
  go_network: ["See what the layers made of it", "看各层把它变成了什么"],

  garbage_empty: ["{name} is empty (0 bytes). Choose the file again.", "{name} 是空的（0 字节）。请重新选择。"],
  garbage_heic: ["{name} is a HEIC photo, which this service cannot read. Export it as JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible) and drop that.", "{name} 是 HEIC 照片，本服务读不了。请导出为 JPEG（iPhone：设置、相机、格式、兼容性最佳）再拖进来。"],
  garbage_text: ["{name} is not a picture. Take a JPEG, PNG, WebP, GIF, BMP or TIFF file.", "{name} 不是图片。请用 JPEG、PNG、WebP、GIF、BMP 或 TIFF 文件。"],
  garbage_pixels: ["{name} has too many pixels. Make it smaller in any picture program and drop that.", "{name} 的像素太多。请用任何看图软件缩小，再拖进来。"],
  garbage_bytes: ["{name} is too large a file. Save it as a smaller JPEG and drop that.", "{name} 文件太大。请另存为小一些的 JPEG 再拖进来。"],
  garbage_broken: ["{name} cannot be read; it is damaged or not complete. Download or copy it again.", "{name} 读不出来，它已损坏或不完整。请重新下载或复制。"],
  garbage_none: ["There was no file in what you dropped. Save the picture first, then drop the file.", "拖进来的东西里没有文件。请先保存图片再拖文件。"],
  garbage_many: ["One picture at a time: the first of the {count} was taken.", "一次一张：取了 {count} 张中的第一张。"],

  network_title: ["What each layer made of it", "每一层把它变成了什么"],
  network_guide: ["The picture goes through the network from left to right. Each column is a block: a [convolution](convolution) sweeps its [filters](filter) over what came before, and each filter leaves one [activation map](activation_map), bright where its pattern is. The first filters find edges and colours; deeper ones see more of the picture (their [receptive field](receptive_field) grows) and find textures, parts and things. Choose a map to look at it closely.", "图片从左到右穿过网络。每一栏是一个模块：[卷积](convolution)让它的[滤波器](filter)扫过前一栏的结果，每个滤波器留下一张[激活图](activation_map)，哪里有它要找的图案，哪里就亮。最前面的找边缘和颜色；越往后，看到的范围（[感受野](receptive_field)）越大，找的是纹理、部件和物体。选一张图细看。"],
  scale: ["Brightness", "亮度"],
  scale_map: ["each map its own", "每张图各自"],
  scale_layer: ["compare in a layer", "层内可比"],
  scale_fixed: ["compare all", "全部可比"],
  scale_limit: ["Brightest at", "最亮值"],
  input: ["Picture", "图片"],
  maps_of: ["{channels} maps of {height} × {width}", "{channels} 张 {height} × {width} 的图"],
  vector_of: ["{count} numbers", "{count} 个数"],
  sees: ["sees {height} × {width} px", "看到 {height} × {width} 像素"],
  sees_all: ["sees the whole picture", "看到整张图片"],
  sees_unknown: ["places unknown", "位置未知"],
  shows: ["Layer shown in block {block}", "模块 {block} 显示哪一层"],
  all_maps: ["All {count} maps", "全部 {count} 张"],
  maps_of_layer: ["All maps of {layer}", "{layer} 的全部图"],
  close: ["Close", "关闭"],
  not_maps: ["{shape} numbers: not maps, so there is no picture of them.", "{shape} 个数：不是图，所以画不出来。"],
  map_alt: ["Map {channel} of {layer}, from {low} to {high}{flag}", "{layer} 的第 {channel} 张图，从 {low} 到 {high}{flag}"],
  flag_zero: ["all zero", "全为零"],
  flag_constant: ["constant", "处处相同"],
  flag_finite: ["not finite", "有非有限值"],
  comes_from: ["Where a map comes from", "一张图从何而来"],
  comes_from_hint: ["Point at a map, or move to it with the Tab key: its strongest place, what that sees, and the five maps it is made of most.", "指向一张图，或用 Tab 键移过去：它最强的位置、那里看到什么，以及贡献最大的五张输入图。"],
  comes_from_of: ["{layer} {channel}: strongest at row {y}, column {x}", "{layer} {channel}：最强处在第 {y} 行第 {x} 列"],
  adds: ["{what} adds {value}", "{what} 加了 {value}"],
  probabilities: ["Probabilities", "概率"],
  strip_label: ["The network, block by block", "网络，一块一块地看"],
  block_alt: ["Block {number}: {layer}", "第 {number} 块：{layer}"],

  unit_title: ["One unit", "一个单元"],
  unit_guide: ["A unit is one [filter](filter) and the [map](activation_map) it leaves: the same question asked at every place of the picture. What the filter looks for shows in its weights, in the part of this picture that fired it most, and in what the [deconvnet](deconvnet) sends back from there to the pixels.", "一个单元就是一个[滤波器](filter)和它留下的那张[图](activation_map)：同一个问题，处处都问。它在找什么，可以从它的权重、这张图片里最能激发它的部分，以及[反卷积网络](deconvnet)从那里送回像素的东西看出来。"],
  layer: ["Layer", "层"],
  channel: ["Channel", "通道"],
  previous: ["previous", "上一个"],
  next: ["next", "下一个"],
  its_map: ["Its map", "它的图"],
  map_hint: ["Point at a place to read it, choose it to see how it is computed.", "指向一处可读数；选中它可看怎样算出来。"],
  open_torch: ["How is one of these numbers computed?", "这些数是怎样算出来的？"],
  its_filter: ["Its filter", "它的滤波器"],
  its_filter_of: ["the filter of {layer}", "{layer} 的滤波器"],
  filter_alt: ["Weights of filter {channel} of {layer}", "{layer} 第 {channel} 个滤波器的权重"],
  filter_rgb: ["{height} × {width} weights for each colour; grey is zero", "每种颜色 {height} × {width} 个权重；灰色为零"],
  filter_some: ["its {shown} strongest of {count} input channels; grey is zero", "{count} 个输入通道中最强的 {shown} 个；灰色为零"],
  no_filter: ["{layer} has no filters of its own.", "{layer} 自己没有滤波器。"],
  histogram: ["Its numbers", "它的数值"],
  histogram_alt: ["Histogram of {count} numbers from {low} to {high}; {zero} are zero", "{count} 个数的直方图，从 {low} 到 {high}；{zero} 个为零"],
  histogram_note: ["{zero} of {count} are zero; the mean is {mean}", "{count} 个中有 {zero} 个为零；平均 {mean}"],
  fired: ["What fired it, and what comes back", "什么激发了它，又送回了什么"],
  patch: ["the part of the picture", "图片的这一部分"],
  patch_alt: ["Pixels in rows {top} to {bottom}, columns {left} to {right}", "第 {top} 至 {bottom} 行、第 {left} 至 {right} 列的像素"],
  reconstruction: ["sent back down", "送回像素"],
  reconstruction_alt: ["Deconvnet reconstruction of the strongest place", "最强位置的反卷积重建"],
  reconstruction_note: ["From row {y}, column {x}, the strongest. It shows which pattern fired the unit, not why the class.", "从最强处（第 {y} 行第 {x} 列）送回。它说明什么图案激发了单元，而不是为何是这一类。"],
  top_images: ["Images that fire it most", "最能激发它的图像"],
  row_best: ["most", "最强"],
  row_random: ["at random", "随机"],
  row_lowest: ["least", "最弱"],
  top_source: ["Out of {name}, {split} images.", "取自 {name}，{split} 图像。"],
  top_alt: ["{label}, value {value}", "{label}，数值 {value}"],
  no_index: ["There is no index of other images beside this checkpoint; `torchlight index CHECKPOINT SOURCE` makes one.", "这个检查点旁边没有其他图像的索引；用 `torchlight index CHECKPOINT SOURCE` 可以建立。"],
  dead_unit: ["Zero everywhere in every indexed image: a dead unit.", "在所有被索引图像的所有位置都为零：一个死单元。"],

  torch_title: ["How one number comes about", "一个数是怎样来的"],
  torch_guide_convolution: ["Move over the map. Like the light of a torch, a window sweeps over what the layer reads. Every number under it is multiplied with the number of the [filter](filter) at the same place; the products and the [bias](bias), if any, add up to one number of the map. The filter is the same everywhere.", "在图上移动。像手电的光一样，一个窗口扫过这一层读到的东西。窗口下的每个数都与[滤波器](filter)同一位置的数相乘，所有乘积与[偏置](bias)（若有）相加，就是图上的一个数。处处用同一个滤波器。"],
  torch_guide_batch_norm: ["[Batch norm](batch_norm) moves and stretches each map by fixed numbers kept from training, so that the next layer gets numbers of a familiar size.", "[批归一化](batch_norm)用训练时留下的固定数值平移并缩放每张图，让下一层总是收到大小熟悉的数。"],
  torch_guide_activation: ["An [activation function](relu) bends each number for itself; without it all layers together would be no more than one. Every dot is one number of this map: across what came in, upwards what goes out.", "[激活函数](relu)把每个数各自弯折一下；没有它，所有的层合起来也只抵一层。每个点是这张图的一个数：横向是进来的，纵向是出去的。"],
  torch_guide_max_pool: ["[Pooling](pooling) makes maps smaller. Of each window only the largest number stays: that the pattern was there counts, not exactly where.", "[池化](pooling)把图缩小。每个窗口只留最大的数：要紧的是图案出现过，而不是精确的位置。"],
  torch_guide_average_pool: ["[Pooling](pooling) makes maps smaller. Each window is replaced by its mean.", "[池化](pooling)把图缩小。每个窗口由它的平均值代替。"],
  torch_guide_global_pool: ["The whole map becomes its mean: how strongly the pattern is there at all.", "整张图变成它的平均，也就是图案总的来说有多强。"],
  torch_guide_linear: ["[Fully connected](fully_connected): each class weighs every number that was found. What speaks for it adds to its [logit](logit), what speaks against it takes away.", "[全连接](fully_connected)：每个类别都权衡找到的每一个数。支持它的使 [logit](logit) 增大，反对它的使它减小。"],
  torch_guide_softmax: ["[Softmax](softmax) makes shares of the [logits](logit): e is raised to each, so that all are positive, and each is divided by the sum.", "[Softmax](softmax) 把 [logit](logit) 变成份额：先取 e 的幂，使全部为正，再除以总和。"],
  torch_guide_sum: ["Two branches meet and are added, place by place. So a block only has to say what should change.", "两条支路在此相遇，逐处相加。于是一个模块只需说出该改变什么。"],
  torch_guide_product: ["Two branches meet and are multiplied: one says how much of the other passes.", "两条支路在此相遇并相乘：一条决定另一条通过多少。"],
  torch_guide_other: ["This layer only passes numbers on, or arranges them differently.", "这一层只是把数传下去，或重新排列。"],
  torch_photo: ["lit: rows {top} to {bottom}, columns {left} to {right}", "照亮：第 {top} 至 {bottom} 行，第 {left} 至 {right} 列"],
  torch_unlit: ["this place sees only padding", "这个位置只看到填充"],
  torch_no_place: ["this layer's places have no known place in the picture", "这一层的位置在图片里没有已知的对应处"],
  torch_map: ["Map of {layer}, channel {channel}. Arrow keys move, space plays.", "{layer} 第 {channel} 通道的图。方向键移动，空格键播放。"],
  torch_map_caption: ["{layer}, channel {channel}: row {y}, column {x}", "{layer}，第 {channel} 通道：第 {y} 行第 {x} 列"],
  row: ["Row", "行"],
  column: ["Column", "列"],
  play: ["Play", "播放"],
  pause: ["Pause", "暂停"],
  digits: ["Digits", "小数位"],
  digits_full: ["all", "全部"],
  export: ["Save as CSV", "存为 CSV"],
  under_window: ["under the torch", "手电照到的"],
  times_filter: ["filter", "滤波器"],
  products: ["products", "乘积"],
  sum_of: ["sum", "和"],
  others: ["the other {count} channels together", "其余 {count} 个通道合计"],
  every_channel: ["What each input channel adds", "每个输入通道加了多少"],
  sum_products: ["sum of {count} products", "{count} 个乘积之和"],
  bias: ["bias", "偏置"],
  no_bias: ["no bias", "无偏置"],
  our_sum: ["Our own sum", "我们算的"],
  framework: ["PyTorch's value", "PyTorch 的值"],
  difference: ["difference", "相差"],
  verified: ["checked by the service: within {bound}, what rounding may do", "服务已核对：在舍入所允许的 {bound} 之内"],
  verified_exactly: ["checked by the service: exactly the same", "服务已核对：完全相同"],
  not_verified: ["more than rounding explains ({bound})", "超出舍入所能解释的 {bound}"],
  moving: ["moving…", "移动中…"],
  padding_note: ["Hatched: outside the map. The layer reads it as zero.", "斜线：图的外面，这一层当作零来读。"],
  padding_note_max: ["Hatched: outside the map, not read.", "斜线：图的外面，不读。"],
  all_numbers: ["All numbers as a table", "以表格列出全部数值"],
  came_in: ["came in", "进来"],
  goes_out: ["goes out", "出去"],
  largest: ["largest", "最大"],
  mean_of: ["sum {sum} ÷ {divisor}", "和 {sum} ÷ {divisor}"],
  passes_on: ["Passed on from {source}, channel {channel}, row {y}, column {x}.", "从 {source} 第 {channel} 通道第 {y} 行第 {x} 列原样传来。"],
  for_class: ["Output", "输出"],
  strongest_inputs: ["The inputs that count most", "最要紧的输入"],
  rest_of_inputs: ["the other {count} inputs", "其余 {count} 个输入"],
  logit: ["logit", "logit"],
  power: ["e to the logit − {shift}, the largest", "e 的（logit − 最大的 {shift}）次幂"],
  share: ["divided by the sum, {sum}", "除以总和 {sum}"],
  now_at: ["row {y}, column {x}: {value}", "第 {y} 行第 {x} 列：{value}"],
  replay: ["Play again", "重播"],

  evidence_title: ["Why this answer?", "为何是这个答案？"],
  evidence_guide: ["Each method asks in its own way, and in its own measure, which parts of the picture speak for a class (red) and which against it (blue): compare places within a picture, not pictures by strength. None of them proves a cause. The plainest test is the grey square below.", "每种方法以自己的方式和尺度询问：图片的哪些部分支持某一类（红），哪些反对它（蓝）。请在一张图内比较各处，不要拿不同的图比强弱。它们都证明不了因果；最朴素的检验是下面那块灰色方块。"],
  why_class: ["Why", "为何是"],
  rather_than: ["rather than", "而不是"],
  nothing_else: ["(no other class)", "（不与别类比较）"],
  opacity: ["Colour over picture", "颜色盖住图片"],
  smooth: ["Cells", "格子"],
  smooth_no: ["as computed", "照计算结果"],
  smooth_yes: ["blended", "平滑"],
  legend_for: ["for {label}", "支持 {label}"],
  legend_against: ["against {label}", "反对 {label}"],
  method_grad_cam: ["Grad-CAM", "Grad-CAM"],
  method_hires_cam: ["HiResCAM", "HiResCAM"],
  method_saliency: ["Saliency", "显著图"],
  method_input_x_gradient: ["Input × gradient", "输入 × 梯度"],
  method_integrated_gradients: ["Integrated gradients", "积分梯度"],
  method_occlusion: ["Occlusion", "遮挡"],
  about_grad_cam: ["Weighs each map of the last layer by how much the class wants of it.", "按该类别对最后一层各图的需要程度加权。"],
  about_hires_cam: ["The same, place by place. With a linear end it adds up to the logit.", "同上，但逐处相乘。若末端是线性的，合计为 logit。"],
  about_saliency: ["How strongly the score answers to each pixel. Has no sign.", "得分对每个像素有多敏感。没有正负。"],
  about_input_x_gradient: ["The same with the sign of what is there.", "同上，并带上像素本身的正负。"],
  about_integrated_gradients: ["Collected on the way from an empty picture to this one.", "沿着从空白图到此图的路累加。"],
  about_occlusion: ["What the score loses when a square hides the place.", "用方块挡住某处时得分少了多少。"],
  compute: ["Compute", "计算"],
  compute_note: ["takes a while for this network", "对这个网络要算一阵子"],
  evidence_alt: ["{method} for {label}: strongest for it at row {y}, column {x} of {height} by {width} cells, {value}; strongest against it {against}", "{label} 的 {method}：在 {height} 乘 {width} 格中，第 {y} 行第 {x} 列最支持它，{value}；最反对它的是 {against}"],
  no_positive: ["Nothing at this layer speaks for the class.", "这一层里没有支持该类的证据。"],
  cells: ["{height} × {width} cells, from {low} to {high}", "{height} × {width} 格，从 {low} 到 {high}"],
  adds_up: ["Does it add up?", "合得上吗？"],
  adds_up_yes: ["cells {sum} + bias {bias} = {total}; the logit is {logit}; {residual} is left over", "各格 {sum} + 偏置 {bias} = {total}；logit 是 {logit}；余下 {residual}"],
  adds_up_alt: ["For {positive}, against {negative}, bias {bias}, logit {logit}", "支持 {positive}，反对 {negative}，偏置 {bias}，logit {logit}"],
  law_none: ["Does not claim to add up to the logit, {logit}.", "并不声称合计等于 logit（{logit}）。"],
  hide_title: ["Hide a part and see", "挡住一块看看"],
  hide_guide: ["Drag the grey square over the picture, or move it with the arrow keys. The network answers anew for every place.", "把灰色方块在图片上拖动，或用方向键移动。每到一处，网络都重新作答。"],
  hide_label: ["Grey square, row {y}, column {x}. Arrow keys move it.", "灰色方块，第 {y} 行第 {x} 列。方向键可移动它。"],
  hide_size: ["Side of the square", "方块边长"],
  hidden_at: ["{side} × {side} pixels hidden at row {y}, column {x}", "第 {y} 行第 {x} 列起挡住了 {side} × {side} 像素"],
  without: ["nothing hidden", "没有遮挡"],

  training_title: ["What it learned, and how", "它学到了什么，怎样学的"],
  training_guide: ["Nobody wrote these filters; at first they were noise. [Training](training) showed the network pictures with the right answer, measured how wrong it was (the [loss](loss)), and moved every weight a little towards less wrong, many thousand times. Then it was [tested](testing) on pictures it had never seen.", "这些滤波器不是谁写出来的，开始时只是噪声。[训练](training)就是给网络看带有正确答案的图片，量出它错了多少（[损失](loss)），再把每个权重朝少错一点的方向挪一小步，如此成千上万次。最后用它从未见过的图片来[测试](testing)。"],
  first_filters: ["The filters of {layer}", "{layer} 的滤波器"],
  first_filters_note: ["Each is {height} × {width} pixels. Grey is zero; a colour means that the filter asks for it.", "每个 {height} × {width} 像素。灰色为零；有颜色表示滤波器在找这种颜色。"],
  filters_deep: ["The filters of {layer} read {count} maps, not colours; choose one to see its weights.", "{layer} 的滤波器读的是 {count} 张图，不是颜色；选一个看它的权重。"],
  space: ["Weights for", "权重对应"],
  space_pixel: ["raw colours", "原始颜色"],
  space_normalised: ["normalised input", "归一化的输入"],
  no_convolution: ["This network has no convolution, so there are no filters to show.", "这个网络没有卷积，所以没有滤波器可看。"],
  curve: ["How it got better", "它怎样变好"],
  curve_none: ["This checkpoint does not say how each epoch went.", "这个检查点没有记下每一轮的情况。"],
  curve_alt: ["Loss over {count} epochs: from {first} to {last}", "{count} 轮中的损失：从 {first} 到 {last}"],
  train_loss: ["loss on what it trained on", "训练图片上的损失"],
  val_loss: ["loss on held-out pictures", "留出图片上的损失"],
  val_accuracy: ["right on held-out pictures", "留出图片的正确率"],
  epoch: ["Epoch", "轮次"],
  film: ["From noise to edges", "从噪声到边缘"],
  film_none: ["This checkpoint carries no pictures of its filters during training.", "这个检查点没有带上训练途中滤波器的样子。"],
  film_frame: ["Filters after epoch {epoch}", "第 {epoch} 轮之后的滤波器"],
  tested: ["How well it does", "它有多准"],
  tested_on: ["{share} of {images} pictures right ({split})", "{images} 张图片中答对 {share}（{split}）"],
  tested_some: ["{share} right ({split})", "答对 {share}（{split}）"],
  cross_validated: ["{share} of {images} pictures right, each judged by a network that had not seen it ({folds}-fold cross-validation); this network then learnt from all of them. Of many more pictures of the same kind: {low} to {high}, with 95% confidence.", "{images} 张图片中答对 {share}，每张都由没有见过它的网络来判断（{folds} 折交叉验证）；随后这个网络用全部图片学习。若有更多同类图片，答对的份额有 95% 的把握在 {low} 到 {high} 之间。"],
  set_tested: ["The likely classes that an answer names are meant to hold the truth for {part} of {whole} pictures. Of {images} held-out pictures they held it for {share}, with {size} names on average; of those of {label}, the hardest, for {worst}.", "答案所列的可能类别，应当在每 {whole} 张图片中对 {part} 张包含真相。在 {images} 张留出的图片中，{share} 包含真相，平均 {size} 个名称；最难的 {label} 为 {worst}。"],
  set_none: ["Answers name no set of likely classes: {reason}.", "答案没有列出可能的类别：{reason}。"],
  tested_none: ["This checkpoint does not say how well it does.", "这个检查点没有说它有多准。"],
  recall: ["of the pictures of each class, how many it got right", "每一类的图片中答对了多少"],
  mistakes: ["What it confuses", "它把什么弄混了"],
  mistakes_none: ["Its mistakes were not kept. `torchlight train SOURCE --keep-mistakes` keeps photos that it answered wrongly beside the checkpoint.", "它答错的图片没有保存。用 `torchlight train SOURCE --keep-mistakes` 训练，会把答错的图片存在检查点旁边。"],
  mistakes_unseen: ["Photos that had no part in training ({split}).", "没有参与训练的图片（{split}）。"],
  mistakes_chose_epoch: ["Photos that it was not trained on, but that chose the epoch ({split}).", "没有用来训练、但用来挑选轮次的图片（{split}）。"],
  mistakes_cross_validated: ["Each photo was judged by a network that had not seen it ({split}). This network has learnt from it since, and may answer it right.", "每张图片都由没有见过它的网络来判断（{split}）。这个网络后来也学了它，现在可能答对。"],
  mistakes_hint: ["A row for what it was, a column for what it was taken for. Choose a number to see its photos, and a photo to look into it.", "每行是实际的类别，每列是被当成的类别。选一个数看其中的图片，再选一张图片细看。"],
  mistakes_no_cell: ["It made no mistake.", "它一个也没答错。"],
  mistakes_cell: ["{true} taken for {predicted}: {count}", "{true} 被当成 {predicted}：{count}"],
  mistakes_shares: ["{predicted} {share}, {true} {own}", "{predicted} {share}，{true} {own}"],
  mistakes_more: ["and {count} more, of which no photo is kept", "还有 {count} 张没有保存图片"],
  facts: ["The facts", "基本情况"],
  fact_name: ["checkpoint", "检查点"],
  fact_architecture: ["architecture", "结构"],
  fact_parameters: ["weights", "权重数"],
  fact_multiply_adds: ["multiplications for one picture", "一张图片所需的乘法"],
  fact_device: ["computes on", "在何处计算"],
  fact_int8: ["right as served, in int8", "以 int8 服务的准确率"],
  fact_digest: ["digest", "摘要"],
};

/** term -> its name and its meaning, in English and in Chinese. */
const GLOSSARY = {
  pixel: [["pixel", "One dot of a picture: three numbers from 0 to 255, for red, green and blue. The network gets them scaled to lie around zero."], ["像素", "图片的一个点：红、绿、蓝三个 0 到 255 的数。网络得到的已缩放到零的附近。"]],
  logit: [["logit", "The score of one class before softmax. Only differences between classes matter."], ["logit", "softmax 之前某一类的得分。要紧的只是类别之间的差。"]],
  softmax: [["softmax", "Turns scores into positive shares that add up to 1."], ["softmax", "把得分变成合计为 1 的正份额。"]],
  convolution: [["convolution", "Sweeps a small window over its input and, at every place, multiplies what is under it with a filter and adds up. It moves by the stride; padding may lie around the border."], ["卷积", "让小窗口扫过输入，在每一处把窗口下的数与滤波器相乘并相加。每次移动的距离叫步幅；边缘之外可补填充。"]],
  filter: [["filter", "A small block of weights, the same at every place: the pattern a unit looks for. Also called kernel."], ["滤波器", "一小块权重，处处相同：单元要找的图案。也叫卷积核。"]],
  activation_map: [["activation map", "The answers of one filter at all places. Also called feature map."], ["激活图", "一个滤波器在所有位置的回答。也叫特征图。"]],
  receptive_field: [["receptive field", "The part of the picture that can influence one number of a layer. It grows from layer to layer; pixels in its middle usually count most."], ["感受野", "图片中能影响某一层一个数的那一部分，逐层变大；中间的像素通常最要紧。"]],
  strange: [["strange", "Two things are measured: how far the picture's last numbers are from those of the pictures that the network learnt from, and how undecided the answer is. If at most 5 of 100 known pictures are as strange, it counts as unknown. So 5 of 100 known ones do too."], ["陌生", "量两件事：这张图片最后的那组数离网络学过的图片有多远，以及答案有多犹豫。若 100 张已知图片中至多 5 张同样陌生，就算未知。因此已知图片里也有 5% 会被这样看待。"]],
  bias: [["bias", "A number added to every sum: how easily the unit fires."], ["偏置", "加到每个和上的一个数，决定单元有多容易被激发。"]],
  batch_norm: [["batch norm", "Subtracts a mean, divides by a spread, then multiplies and adds two trained numbers."], ["批归一化", "减去平均，除以离散程度，再乘、再加两个训练得来的数。"]],
  relu: [["activation function", "Bends each number. The usual one, ReLU, turns negative numbers into zero."], ["激活函数", "把每个数弯折一下。最常用的 ReLU 把负数变成零。"]],
  pooling: [["pooling", "Replaces each window of a map by its largest number or its mean, so that small shifts matter less."], ["池化", "用窗口中的最大值或平均值代替整个窗口，微小的移动就不再要紧。"]],
  fully_connected: [["fully connected", "A layer in which every output weighs every input."], ["全连接", "每个输出都权衡每个输入的层。"]],
  deconvnet: [["deconvnet", "Sends one activation back down: pooling is undone where the maximum was, negative signal is cut, filters are applied in reverse. Zeiler and Fergus, 2014."], ["反卷积网络", "把一个激活值一路往回送：池化回到最大值所在处，负信号去掉，滤波器反着用。Zeiler 与 Fergus，2014。"]],
  training: [["training", "Changing the weights step by step, so that answers for known pictures become less wrong. Once through all of them is an epoch."], ["训练", "一步步改变权重，使对已知图片的回答错得更少。全部过一遍叫一轮。"]],
  loss: [["loss", "How wrong an answer is, as one number; zero would mean certain and right."], ["损失", "用一个数表示回答错了多少。零表示既确定又正确。"]],
  testing: [["testing", "Counting right answers on pictures that training never used. Only that says how well it will do on yours."], ["测试", "在训练从未用过的图片上数出答对多少。只有它能说明网络对你的图片会有多准。"]],
};

const column = (at) => Object.fromEntries(Object.entries(WORDS).map(([name, both]) => [name, both[at]]));
export const LANGUAGES = { en: column(0), zh: column(1) };
export const NAMES = { en: "English", zh: "中文" };
let language = "en";

export const currentLanguage = () => language;

export function setLanguage(name) {
  language = name;
  document.documentElement.lang = { en: "en", zh: "zh-Hans" }[name];
}

/** The text of that name in the language chosen, with `{name}` replaced by `values.name`. */
export function t(name, values = {}) {
  const text = LANGUAGES[language][name];
  if (text === undefined) throw new Error(`no words for ${name}`);
  return text.replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** The text of that name as nodes: `[text](term)` becomes a term that explains itself, `code` is code. */
export function rich(name, values = {}) {
  return t(name, values)
    .split(/(\[[^\]]+\]\(\w+\)|`[^`]+`)/)
    .map((part) => {
      const link = /^\[([^\]]+)\]\((\w+)\)$/.exec(part);
      if (link) return term(link[2], link[1]);
      return part.startsWith("`") ? h("code", {}, part.slice(1, -1)) : part;
    });
}

/** A text with nodes in place of `{name}`. */
export function withNodes(name, nodes) {
  return t(name, Object.fromEntries(Object.keys(nodes).map((key) => [key, `{${key}}`])))
    .split(/(\{\w+\})/)
    .map((part) => (/^\{\w+\}$/.test(part) ? nodes[part.slice(1, -1)] : part));
}

let shownTerms = 0;

/** A word that explains itself when it is pointed at, focused or pressed; Escape takes the explanation away. */
function term(name, text) {
  const [title, meaning] = GLOSSARY[name][language === "en" ? 0 : 1];
  shownTerms += 1;
  const note = h("span", { class: "term-note", role: "tooltip", id: `term-${shownTerms}` }, h("strong", {}, title), " ", meaning);
  const word = h("button", { type: "button", class: "term", "aria-describedby": note.id }, text);
  const holder = h("span", { class: "term-holder" }, word, note);
  const place = () => {
    note.style.setProperty("--shift", "0px");
    const box = note.getBoundingClientRect();
    const room = document.documentElement.clientWidth - 8;
    note.style.setProperty("--shift", `${Math.min(0, room - box.right) + Math.max(0, 8 - box.left)}px`);
  };
  const open = () => {
    holder.classList.add("open");
    place();
  };
  const close = () => holder.classList.remove("open");
  holder.addEventListener("mouseenter", open);
  holder.addEventListener("mouseleave", close);
  word.addEventListener("focus", open);
  word.addEventListener("blur", close);
  word.addEventListener("click", open);
  word.addEventListener("keydown", (event) => event.key === "Escape" && close());
  return holder;
}

/** The words for what is wrong with a map. */
export const flagWords = (flag) => ({ "": "", "all zero": t("flag_zero"), constant: t("flag_constant"), "not finite": t("flag_finite") })[flag];
