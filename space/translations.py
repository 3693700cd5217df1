"""Every text of the demo by its key, once for each language."""

from __future__ import annotations

__all__ = ["ENGLISH", "GERMAN", "SPANISH"]


ENGLISH = {
    "lead": "A face photo in, a stylized portrait out. No account, and no GPU needed.",
    "photo": "Your photo",
    "photo_alt": "The photo to stylize",
    "people": "Or try one of these people, who do not exist",
    "style": "Style",
    "consent": (
        "Only use photos of people who agree to it. Photos are worked on by this server alone, are "
        "never shown to other visitors, train nothing, and are deleted within the hour."
    ),
    "cut": "Finding the face",
    "cut_find": "Find the faces",
    "cut_center": "Take the middle where none is found",
    "cut_aligned": "It is cut out already: a square, eyes level",
    "faces": "Faces found: click one to leave it out or take it back",
    "faces_alt": "The photo with a numbered box around every face",
    "faces_chosen": "Faces to stylize",
    "tab_stylize": "Stylize",
    "tab_variations": "Variations",
    "tab_reference": "Reference",
    "tab_compare": "Compare",
    "result": "Before and after: drag the handle",
    "view": "Show",
    "portrait": "Portrait",
    "full": "Full photo",
    "download": "Download PNG",
    "strength": "Strength",
    "strength_info": "0 is the photo drawn anew, 1 the full style, more exaggerates",
    "keep_color": "Keep my colours",
    "keep_color_info": "How much of the photo's own colours comes back",
    "keep_texture": "Keep hair and skin",
    "keep_texture_info": "How much of their natural texture comes back",
    "keep_shape": "Keep my shapes",
    "keep_shape_info": "How much of the face's own shapes and expression comes back",
    "keep_shape_none": "This style leaves shapes as they are",
    "psi": "Character",
    "psi_info": "psi: lower is nearer to the average face, with fewer slips",
    "refine": "Likeness",
    "refine_info": "Steps towards this very face, one to three seconds for every eight; 0 draws it as first seen",
    "strokes": "Other strokes",
    "strokes_info": "A seed: brush strokes and strands of hair lie elsewhere; 0 as trained",
    "reset": "Reset the sliders",
    "again": "The same in Python, in a shell or over HTTP",
    "code_python": "Python",
    "code_shell": "Shell",
    "code_http": "HTTP",
    "level": "What may change",
    "level_3": "Features, hair and colours (3)",
    "level_6": "Hair, clothes and colours (6)",
    "level_9": "Colours (9)",
    "level_12": "Fine colours (12)",
    "seed": "Seed",
    "surprise": "Surprise me",
    "draw": "Draw eight",
    "variations": "Pick one to go on with it",
    "variations_hint": (
        "One photo, eight looks. Press *Surprise me*, then pick one: the sliders below change it "
        "alone."
    ),
    "picked": "Picked: seed {seed}. The sliders now change this one.",
    "reference": "Reference picture",
    "reference_alt": "The picture whose look is taken over",
    "references": "Or follow one of these",
    "whole": "The reference is a cropped portrait already: look for no face in it",
    "alpha": "Share of the reference",
    "follow": "Follow the reference",
    "stop": "Stop",
    "reference_hint": (
        "A new reference is studied once, which takes half a minute on a CPU; after that it is kept "
        "and the sliders answer at once. The examples have been studied already."
    ),
    "studying": "Studying the reference",
    "stopped": (
        "Stopped at step {steps}: this is the best so far. Follow the reference again to go on "
        "from the start."
    ),
    "no_reference": "Add a reference picture, or pick one of the examples.",
    "compare": "Compare the methods",
    "compare_hint": (
        "Your photo, cut out once, by every method that can run on this machine; each with what it "
        "takes and how near the portrait stays to the photo."
    ),
    "pair": "Beside the photo",
    "table_png": "Download as PNG",
    "table_json": "Download as JSON",
    "working": "Working",
    "looking": "Looking for faces",
    "no_photo": "Add a photo first: upload one, take one, or paste one.",
    "no_faces_chosen": "No face is chosen. Take one back to see it stylized.",
    "done": "{faces} in {seconds:.1f} s · {style}",
    "closer": "Drawing nearer to this face …",
    "one_face": "1 face",
    "n_faces": "{count} faces",
    "face": "Face {number}",
    "NoFaceError": (
        "No face found. Use a photo in which the face is upright, in focus and not covered, or say "
        "under *Finding the face* what else to take."
    ),
    "NoFaceError_reference": (
        "No face found in the reference. Use a picture in which the face is upright, in focus and "
        "not covered; if it is a cropped portrait already, tick the box that says so."
    ),
    "PictureGoneError": "This picture was deleted, as all are within the hour. Add it again.",
    "tab_own": "Your style",
    "own_hint": (
        "About 100 pictures in one style become a style of your own. Pictures with one face "
        "each work best, drawn or painted alike. When you close this page, a training ends and its "
        "pictures are deleted; the uploaded files go within the hour. Download the style before."
    ),
    "own_off": (
        "Training is switched off on this server. On your own machine: `facestyle train "
        "PICTURES -o OUT --name my-style --data-license CC-BY-4.0`, with the licence that the "
        "pictures are under."
    ),
    "own_files": "Pictures of the style, or a zip of them",
    "own_name": "Name, lower case",
    "own_license": "Licence of the pictures",
    "own_length": "Length of the training",
    "preset_fast": "Short: to try (about 10 minutes on two cores)",
    "preset_default": "Usual (about 35 minutes)",
    "preset_patches": "Drawn styles: clean lines, own skin tones (about 10 minutes)",
    "preset_portrait": "Drawn styles, nearer to the person: their own hair too (about 35 minutes)",
    "preset_faithful": "Usual, nearer to the person (about 35 minutes)",
    "own_look": "Look at the pictures",
    "own_train": "Train",
    "own_found": "**{used} of {total} pictures will be used.**",
    "own_sheet_alt": (
        "The pictures: with a red frame those left out and why, with a green frame those that"
        " are used"
    ),
    "own_preview": "People it has never seen: photo above, portrait below",
    "own_preview_alt": "Portraits in the new style so far",
    "stage_check": "Looking at the pictures",
    "stage_star": "Learning the style",
    "stage_pairs": "Finding a person for each picture",
    "stage_run": "Learning to keep the person",
    "stage_hair": "Giving people their own hair",
    "stage_likeness": "Learning to tell people apart",
    "own_steps": "{done} of {total} · {left} left",
    "own_waiting": "Another visitor's training is under way. Yours begins by itself when it ends.",
    "own_stopped": "Stopped. Press *Train* to go on from here.",
    "StyleNotFoundError": "This style is gone: it was kept as long as the page was connected.",
    "NoPicturesError": "Add some pictures of the style, or a zip of them.",
    "NoLicenseError": "Say under which licence the pictures are; it is kept with the style.",
    "NoTokenError": "Give a token of your Hub account that may write.",
    "own_use": "Use it in the other tabs",
    "own_download": "Download the style",
    "own_push": "Push it to the Hugging Face Hub",
    "own_repo": "Repository",
    "own_token": "Token with the right to write",
    "own_token_info": "Used once, kept nowhere",
    "own_private": "Private",
    "own_push_go": "Push",
    "own_pushed": "It is there: {address}",
    "comparing": "One method draws after another; this takes a minute or two.",
    "measured_live": "Measured live on this machine; memory of the {memory}.",
    "measured_before": (
        "Measured beforehand in the style {style}, on {machine}, {date}; memory of the {memory}."
    ),
    "compare_prepared": "Show one measured beforehand",
    "not_prepared": "No comparison was measured beforehand for this style.",
    "not_prepared_but": "None was measured beforehand for this style; this one is of {style}.",
    "takes_diffusion": "Not here: it takes a Stable Diffusion model and a GPU.",
    "takes_training": "Not here: it takes a network of its own, trained on this style.",
    "takes_files": "Not here: it takes its authors' files.",
    "takes_else": "Not here.",
    "column_seconds": "s a face",
    "column_memory": "memory, MB",
    "column_parameters": "parameters, M",
    "column_side": "side, px",
    "column_identity": "identity ↑",
    "column_perceptual": "perceptual ↓",
    "memory_whole_process": "whole process",
    "memory_device": "GPU",
    "identity_by": "Identity to the photo: by {how}.",
    "perceptual_by": "Perceptual distance to the photo: by {how}.",
}

GERMAN = {
    "lead": "Ein Foto hinein, ein gezeichnetes Porträt heraus. Ohne Konto und ohne Grafikkarte.",
    "photo": "Ihr Foto",
    "photo_alt": "Das Foto, das gezeichnet wird",
    "people": "Oder nehmen Sie jemanden, den es nicht gibt",
    "style": "Stil",
    "consent": (
        "Nur Fotos von Menschen verwenden, die einverstanden sind. Fotos verarbeitet allein dieser "
        "Server; andere sehen sie nie, nichts wird damit trainiert, und nach höchstens einer Stunde "
        "sind sie gelöscht."
    ),
    "cut": "Gesichtssuche",
    "cut_find": "Die Gesichter suchen",
    "cut_center": "Die Mitte nehmen, wenn keines gefunden wird",
    "cut_aligned": "Schon ausgeschnitten: ein Quadrat, die Augen waagrecht",
    "faces": "Gefundene Gesichter: anklicken, um eines auszulassen oder wieder zu nehmen",
    "faces_alt": "Das Foto mit einem nummerierten Rahmen um jedes Gesicht",
    "faces_chosen": "Welche Gesichter",
    "tab_stylize": "Zeichnen",
    "tab_variations": "Varianten",
    "tab_reference": "Vorbild",
    "tab_compare": "Vergleich",
    "result": "Vorher und nachher: am Griff ziehen",
    "view": "Zeigen",
    "portrait": "Porträt",
    "full": "Ganzes Foto",
    "download": "PNG herunterladen",
    "strength": "Stärke",
    "strength_info": "0 zeichnet das Foto nach, 1 ist der volle Stil, mehr übertreibt",
    "keep_color": "Meine Farben behalten",
    "keep_color_info": "Wie viel von den Farben des Fotos zurückkommt",
    "keep_texture": "Haar und Haut behalten",
    "keep_texture_info": "Wie viel von ihrer natürlichen Struktur zurückkommt",
    "keep_shape": "Meine Formen behalten",
    "keep_shape_info": "Wie viel von Gesichtszügen und Ausdruck zurückkommt",
    "keep_shape_none": "Dieser Stil lässt die Formen, wie sie sind",
    "psi": "Eigenart",
    "psi_info": "psi: kleiner ist näher am Durchschnittsgesicht, mit weniger Fehlern",
    "refine": "Ähnlichkeit",
    "refine_info": "Schritte hin zu diesem Gesicht, je acht ein bis drei Sekunden; 0: wie auf den ersten Blick",
    "strokes": "Andere Striche",
    "strokes_info": "Eine Startzahl: Pinselstriche und Strähnen liegen anders; 0 wie gelernt",
    "reset": "Regler zurücksetzen",
    "again": "Dasselbe in Python, in der Shell oder über HTTP",
    "code_python": "Python",
    "code_shell": "Shell",
    "code_http": "HTTP",
    "level": "Was sich ändern darf",
    "level_3": "Züge, Haar und Farben (3)",
    "level_6": "Haar, Kleidung und Farben (6)",
    "level_9": "Farben (9)",
    "level_12": "Farbnuancen (12)",
    "seed": "Startzahl",
    "surprise": "Überraschen Sie mich",
    "draw": "Acht zeichnen",
    "variations": "Eine auswählen und mit ihr weitermachen",
    "variations_hint": (
        "Ein Foto, acht Ansichten. *Überraschen Sie mich* drücken und eine auswählen: die Regler darunter "
        "ändern dann nur sie."
    ),
    "picked": "Ausgewählt: Startzahl {seed}. Die Regler ändern jetzt dieses Bild.",
    "reference": "Vorbild",
    "reference_alt": "Das Bild, dessen Art übernommen wird",
    "references": "Oder eines von diesen",
    "whole": "Das Vorbild ist schon ein zugeschnittenes Porträt: kein Gesicht darin suchen",
    "alpha": "Anteil des Vorbilds",
    "follow": "Dem Vorbild folgen",
    "stop": "Anhalten",
    "reference_hint": (
        "Ein neues Vorbild wird einmal studiert, auf einem Prozessor etwa eine halbe Minute; danach "
        "bleibt es, und die Regler antworten sofort. Die Beispiele sind schon studiert."
    ),
    "studying": "Das Vorbild wird studiert",
    "stopped": (
        "Bei Schritt {steps} angehalten: das Beste bis hierher. Noch einmal folgen beginnt von "
        "vorn."
    ),
    "no_reference": "Ein Vorbild hinzufügen oder eines der Beispiele wählen.",
    "compare": "Verfahren vergleichen",
    "compare_hint": (
        "Ihr Foto, einmal ausgeschnitten, von jedem Verfahren, das hier laufen kann; mit seinem "
        "Aufwand und der Nähe des Porträts zum Foto."
    ),
    "pair": "Neben dem Foto",
    "table_png": "Als PNG herunterladen",
    "table_json": "Als JSON herunterladen",
    "working": "In Arbeit",
    "looking": "Gesichter werden gesucht",
    "no_photo": "Zuerst ein Foto hinzufügen: hochladen, aufnehmen oder einfügen.",
    "no_faces_chosen": "Kein Gesicht ist gewählt. Nehmen Sie eines wieder hinzu.",
    "done": "{faces} in {seconds:.1f} s · {style}",
    "closer": "Wird diesem Gesicht ähnlicher …",
    "one_face": "1 Gesicht",
    "n_faces": "{count} Gesichter",
    "face": "Gesicht {number}",
    "NoFaceError": (
        "Kein Gesicht gefunden. Nehmen Sie ein Foto, auf dem das Gesicht aufrecht, scharf und "
        "unverdeckt ist, oder sagen Sie unter *Gesichtssuche*, was sonst zu nehmen ist."
    ),
    "NoFaceError_reference": (
        "Kein Gesicht im Vorbild gefunden. Nehmen Sie ein Bild, auf dem das Gesicht aufrecht, scharf "
        "und unverdeckt ist; ist es schon ein zugeschnittenes Porträt, setzen Sie das Häkchen dafür."
    ),
    "PictureGoneError": (
        "Dieses Bild ist gelöscht, wie alle nach höchstens einer Stunde. Bitte noch einmal hinzufügen."
    ),
    "FaceTooSmallError": (
        "Das Gesicht ist zu klein. 200 Pixel und mehr sehen gut aus; nehmen Sie ein größeres Foto."
    ),
    "NotAnImageError": (
        "Diese Datei ist kein lesbares Bild. Nehmen Sie JPEG, PNG, WebP, AVIF, TIFF, BMP oder GIF."
    ),
    "ImageTooLargeError": "Dieses Bild hat zu viele Pixel. Verkleinern Sie es zuerst.",
    "ImageTooSmallError": (
        "Dieses Bild hat zu wenige Pixel für ein Gesicht. Nehmen Sie ein größeres."
    ),
    "tab_own": "Eigener Stil",
    "own_hint": (
        "Aus etwa 100 Bildern eines Stils wird ein eigener Stil. Am besten zeigt jedes ein "
        "Gesicht, alle gleich gezeichnet oder gemalt. Schließen Sie diese Seite, endet das Training, "
        "und seine Bilder werden gelöscht; die hochgeladenen Dateien nach höchstens einer Stunde. "
        "Den Stil bitte vorher herunterladen."
    ),
    "own_off": (
        "Auf diesem Server wird nicht trainiert. Auf dem eigenen Rechner: `facestyle train "
        "BILDER -o ORDNER --name mein-stil --data-license CC-BY-4.0`, mit der Lizenz, unter der "
        "die Bilder stehen."
    ),
    "own_files": "Bilder des Stils oder eine Zip-Datei davon",
    "own_name": "Name, klein geschrieben",
    "own_license": "Lizenz der Bilder",
    "own_length": "Dauer des Trainings",
    "preset_fast": "Kurz: zum Ausprobieren (etwa 10 Minuten auf zwei Kernen)",
    "preset_default": "Üblich (etwa 35 Minuten)",
    "preset_patches": "Gezeichnete Stile: klare Linien, eigene Hauttöne (etwa 10 Minuten)",
    "preset_portrait": "Gezeichnete Stile, näher an der Person: auch eigenes Haar (etwa 35 Minuten)",
    "preset_faithful": "Üblich, näher an der Person (etwa 35 Minuten)",
    "own_look": "Bilder ansehen",
    "own_train": "Trainieren",
    "own_found": "**{used} von {total} Bildern werden verwendet.**",
    "own_sheet_alt": (
        "Die Bilder: rot umrahmt, was mit Grund ausgelassen wird, grün umrahmt, was verwendet wird"
    ),
    "own_preview": "Menschen, die im Training nicht vorkamen: oben das Foto, unten das Porträt",
    "own_preview_alt": "Porträts im neuen Stil, wie er bisher ist",
    "stage_check": "Die Bilder werden angesehen",
    "stage_star": "Der Stil wird gelernt",
    "stage_pairs": "Zu jedem Bild wird ein Mensch gesucht",
    "stage_run": "Lernt, die Person zu bewahren",
    "stage_hair": "Gibt den Menschen ihr eigenes Haar",
    "stage_likeness": "Lernt, Menschen zu unterscheiden",
    "own_steps": "{done} von {total} · noch {left}",
    "own_waiting": "Jemand anderes trainiert gerade. Danach beginnt Ihr Training von selbst.",
    "own_stopped": "Angehalten. *Trainieren* macht von hier aus weiter.",
    "StyleNotFoundError": "Diesen Stil gibt es nicht mehr: er blieb, solange die Seite verbunden war.",
    "NoPicturesError": "Fügen Sie einige Bilder des Stils hinzu, oder ein Zip davon.",
    "NoLicenseError": "Geben Sie an, unter welcher Lizenz die Bilder stehen; sie wird mit dem Stil gespeichert.",
    "NoTokenError": "Geben Sie ein Token Ihres Hub-Kontos an, das schreiben darf.",
    "own_use": "In den anderen Reitern verwenden",
    "own_download": "Stil herunterladen",
    "own_push": "Auf den Hugging Face Hub hochladen",
    "own_repo": "Repository",
    "own_token": "Token mit Schreibrecht",
    "own_token_info": "Wird einmal benutzt und nirgends aufbewahrt",
    "own_private": "Nicht öffentlich",
    "own_push_go": "Hochladen",
    "own_pushed": "Er ist dort: {address}",
    "comparing": "Ein Verfahren zeichnet nach dem anderen; das dauert ein bis zwei Minuten.",
    "measured_live": "Gerade auf diesem Rechner gemessen; Speicher: {memory}.",
    "measured_before": (
        "Vorher im Stil {style} gemessen, auf {machine}, {date}; Speicher: {memory}."
    ),
    "compare_prepared": "Früheren Vergleich zeigen",
    "not_prepared": "Für diesen Stil wurde vorher kein Vergleich gemessen.",
    "not_prepared_but": "Für diesen Stil wurde vorher keiner gemessen; dieser ist im Stil {style}.",
    "takes_diffusion": "Nicht hier: Es braucht ein Stable-Diffusion-Modell und eine GPU.",
    "takes_training": "Nicht hier: Es braucht ein eigenes Netz, auf diesen Stil trainiert.",
    "takes_files": "Nicht hier: Es braucht die Dateien seiner Autoren.",
    "takes_else": "Nicht hier.",
    "column_seconds": "s je Gesicht",
    "column_memory": "Speicher, MB",
    "column_parameters": "Parameter, Mio.",
    "column_side": "Seite, px",
    "column_identity": "Identität ↑",
    "column_perceptual": "Wahrnehmung ↓",
    "memory_whole_process": "ganzer Prozess",
    "memory_device": "Grafikkarte",
    "identity_by": "Identität mit dem Foto: {how}.",
    "perceptual_by": "Wahrnehmungsabstand zum Foto: {how}.",
}

SPANISH = {
    "lead": "Entra una foto, sale un retrato dibujado. Sin cuenta y sin tarjeta gráfica.",
    "photo": "Tu foto",
    "photo_alt": "La foto que se dibuja",
    "people": "O prueba con una de estas personas, que no existen",
    "style": "Estilo",
    "consent": (
        "Usa solo fotos de personas que estén de acuerdo. Las fotos las procesa únicamente este "
        "servidor, nadie más las ve, no entrenan nada y se borran en menos de una hora."
    ),
    "cut": "Búsqueda de la cara",
    "cut_find": "Buscar las caras",
    "cut_center": "Tomar el centro si no se encuentra ninguna",
    "cut_aligned": "Ya está recortada: un cuadrado, los ojos a la misma altura",
    "faces": "Caras encontradas: pulsa una para dejarla fuera o recuperarla",
    "faces_alt": "La foto con un marco numerado en cada cara",
    "faces_chosen": "Caras que se dibujan",
    "tab_stylize": "Dibujar",
    "tab_variations": "Variaciones",
    "tab_reference": "Referencia",
    "tab_compare": "Comparar",
    "result": "Antes y después: arrastra el tirador",
    "view": "Mostrar",
    "portrait": "Retrato",
    "full": "Foto entera",
    "download": "Descargar PNG",
    "strength": "Intensidad",
    "strength_info": "0 vuelve a dibujar la foto, 1 es el estilo completo, más exagera",
    "keep_color": "Mantener mis colores",
    "keep_color_info": "Cuánto vuelve de los colores de la foto",
    "keep_texture": "Mantener pelo y piel",
    "keep_texture_info": "Cuánto vuelve de su textura natural",
    "keep_shape": "Mantener mis formas",
    "keep_shape_info": "Cuánto vuelve de los rasgos y la expresión de la cara",
    "keep_shape_none": "Este estilo deja las formas como son",
    "psi": "Carácter",
    "psi_info": "psi: más bajo se acerca a la cara media, con menos fallos",
    "refine": "Parecido",
    "refine_info": "Pasos hacia esta misma cara, de uno a tres segundos por cada ocho; 0: tal como se vio al principio",
    "strokes": "Otros trazos",
    "strokes_info": "Una semilla: pinceladas y mechones caen en otro sitio; 0 como se aprendió",
    "reset": "Restablecer los controles",
    "again": "Lo mismo en Python, en la terminal o por HTTP",
    "code_python": "Python",
    "code_shell": "Terminal",
    "code_http": "HTTP",
    "level": "Qué puede cambiar",
    "level_3": "Rasgos, pelo y colores (3)",
    "level_6": "Pelo, ropa y colores (6)",
    "level_9": "Colores (9)",
    "level_12": "Matices de color (12)",
    "seed": "Semilla",
    "surprise": "Sorpréndeme",
    "draw": "Dibujar ocho",
    "variations": "Elige una para seguir con ella",
    "variations_hint": (
        "Una foto, ocho aspectos. Pulsa *Sorpréndeme* y elige uno: los controles de abajo cambian "
        "solo ese."
    ),
    "picked": "Elegida: semilla {seed}. Los controles cambian ahora esta imagen.",
    "reference": "Imagen de referencia",
    "reference_alt": "La imagen cuyo aspecto se toma",
    "references": "O sigue una de estas",
    "whole": "La referencia ya es un retrato recortado: no buscar una cara en ella",
    "alpha": "Peso de la referencia",
    "follow": "Seguir la referencia",
    "stop": "Parar",
    "reference_hint": (
        "Una referencia nueva se estudia una vez, medio minuto en un procesador; después se guarda y los "
        "controles responden enseguida. Los ejemplos ya están estudiados."
    ),
    "studying": "Estudiando la referencia",
    "stopped": (
        "Parado en el paso {steps}: es lo mejor hasta aquí. Seguir la referencia otra vez empieza de "
        "nuevo."
    ),
    "no_reference": "Añade una imagen de referencia o elige uno de los ejemplos.",
    "compare": "Comparar los métodos",
    "compare_hint": (
        "Tu foto, recortada una vez, con cada método que puede funcionar en esta máquina; con lo que "
        "cuesta y lo cerca que queda el retrato de la foto."
    ),
    "pair": "Junto a la foto",
    "table_png": "Descargar como PNG",
    "table_json": "Descargar como JSON",
    "working": "Trabajando",
    "looking": "Buscando caras",
    "no_photo": "Añade primero una foto: súbela, hazla o pégala.",
    "no_faces_chosen": "Ninguna cara está elegida. Recupera una para verla dibujada.",
    "done": "{faces} en {seconds:.1f} s · {style}",
    "closer": "Acercándose a esta cara …",
    "one_face": "1 cara",
    "n_faces": "{count} caras",
    "face": "Cara {number}",
    "NoFaceError": (
        "No se encontró ninguna cara. Usa una foto con la cara vertical, nítida y sin tapar, o di en "
        "*Búsqueda de la cara* qué tomar en su lugar."
    ),
    "NoFaceError_reference": (
        "No se encontró ninguna cara en la referencia. Usa una imagen con la cara vertical, nítida y sin "
        "tapar; si ya es un retrato recortado, marca la casilla que lo dice."
    ),
    "PictureGoneError": (
        "Esta imagen se borró, como todas en menos de una hora. Añádela otra vez."
    ),
    "FaceTooSmallError": (
        "La cara es demasiado pequeña. Desde 200 píxeles se ve bien; usa una foto más grande."
    ),
    "NotAnImageError": (
        "Este archivo no es una imagen legible. Usa JPEG, PNG, WebP, AVIF, TIFF, BMP o GIF."
    ),
    "ImageTooLargeError": "Esta imagen tiene demasiados píxeles. Redúcela antes.",
    "ImageTooSmallError": "Esta imagen tiene muy pocos píxeles para una cara. Usa una más grande.",
    "tab_own": "Tu estilo",
    "own_hint": (
        "Unas 100 imágenes de un estilo se convierten en un estilo tuyo. Lo mejor: una cara "
        "en cada una, todas dibujadas o pintadas igual. Al cerrar esta página el entrenamiento "
        "termina y sus imágenes se borran; los archivos subidos, en menos de una hora. Descarga "
        "antes el estilo."
    ),
    "own_off": (
        "En este servidor no se entrena. En tu ordenador: `facestyle train IMÁGENES -o "
        "CARPETA --name mi-estilo --data-license CC-BY-4.0`, con la licencia de las imágenes."
    ),
    "own_files": "Imágenes del estilo, o un zip de ellas",
    "own_name": "Nombre, en minúsculas",
    "own_license": "Licencia de las imágenes",
    "own_length": "Duración del entrenamiento",
    "preset_fast": "Corta: para probar (unos 10 minutos en dos núcleos)",
    "preset_default": "Normal (unos 35 minutos)",
    "preset_patches": "Estilos dibujados: líneas limpias, tonos de piel propios (unos 10 minutos)",
    "preset_portrait": "Estilos dibujados, más cerca de la persona: también su pelo (unos 35 minutos)",
    "preset_faithful": "Normal, más cerca de la persona (unos 35 minutos)",
    "own_look": "Mirar las imágenes",
    "own_train": "Entrenar",
    "own_found": "**Se usarán {used} de {total} imágenes.**",
    "own_sheet_alt": (
        "Las imágenes: con marco rojo las que se dejan fuera y por qué, con marco verde las "
        "que se usan"
    ),
    "own_preview": "Personas que nunca ha visto: arriba la foto, abajo el retrato",
    "own_preview_alt": "Retratos en el nuevo estilo hasta ahora",
    "stage_check": "Mirando las imágenes",
    "stage_star": "Aprendiendo el estilo",
    "stage_pairs": "Buscando una persona para cada imagen",
    "stage_run": "Aprendiendo a conservar a la persona",
    "stage_hair": "Devolviendo a cada persona su pelo",
    "stage_likeness": "Aprendiendo a distinguir a las personas",
    "own_steps": "{done} de {total} · quedan {left}",
    "own_waiting": "Hay otro entrenamiento en marcha. El tuyo empieza solo cuando termine.",
    "own_stopped": "Detenido. Pulsa *Entrenar* para seguir desde aquí.",
    "StyleNotFoundError": "Este estilo ya no está: se guardó mientras la página estuvo conectada.",
    "NoPicturesError": "Añade algunas imágenes del estilo, o un zip con ellas.",
    "NoLicenseError": "Indica bajo qué licencia están las imágenes; se guarda con el estilo.",
    "NoTokenError": "Indica un token de tu cuenta del Hub que pueda escribir.",
    "own_use": "Usarlo en las otras pestañas",
    "own_download": "Descargar el estilo",
    "own_push": "Subirlo al Hugging Face Hub",
    "own_repo": "Repositorio",
    "own_token": "Token con permiso de escritura",
    "own_token_info": "Se usa una vez y no se guarda",
    "own_private": "Privado",
    "own_push_go": "Subir",
    "own_pushed": "Está ahí: {address}",
    "comparing": "Los métodos dibujan uno tras otro; tarda uno o dos minutos.",
    "measured_live": "Medido ahora en esta máquina; memoria: {memory}.",
    "measured_before": "Medido antes en el estilo {style}, en {machine}, {date}; memoria: {memory}.",
    "compare_prepared": "Mostrar una comparación ya medida",
    "not_prepared": "Para este estilo no hay una comparación medida antes.",
    "not_prepared_but": "Para este estilo no se midió ninguna antes; esta es de {style}.",
    "takes_diffusion": "Aquí no: necesita un modelo Stable Diffusion y una GPU.",
    "takes_training": "Aquí no: necesita una red propia, entrenada con este estilo.",
    "takes_files": "Aquí no: necesita los archivos de sus autores.",
    "takes_else": "Aquí no.",
    "column_seconds": "s por cara",
    "column_memory": "memoria, MB",
    "column_parameters": "parámetros, M",
    "column_side": "lado, px",
    "column_identity": "identidad ↑",
    "column_perceptual": "percepción ↓",
    "memory_whole_process": "todo el proceso",
    "memory_device": "GPU",
    "identity_by": "Identidad con la foto: {how}.",
    "perceptual_by": "Distancia perceptual a la foto: {how}.",
}
